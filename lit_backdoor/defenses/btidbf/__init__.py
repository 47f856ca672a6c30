"""BTI-DBF: invert a trigger by decoupling benign features, then unlearn it, purify inputs of it, or detect it.

Xu et al., "Towards Reliable and Efficient Backdoor Trigger Inversion via Decoupling Benign Features", ICLR 2024.
"""

from lit_backdoor.defenses.btidbf.adaptive import BTIDBFAdaptiveTraining
from lit_backdoor.defenses.btidbf.detection import BTIDBFDetection
from lit_backdoor.defenses.btidbf.fresh_unlearning import BTIDBFFreshUnlearning
from lit_backdoor.defenses.btidbf.inversion import BTIDBFInversion
from lit_backdoor.defenses.btidbf.partial_purification import BTIDBFPartialPurification
from lit_backdoor.defenses.btidbf.partial_unlearning import BTIDBFPartialUnlearning
from lit_backdoor.defenses.btidbf.purification import BTIDBFPurification
from lit_backdoor.defenses.btidbf.settings import Decoupling, InversionSettings
from lit_backdoor.defenses.btidbf.unlearning import BTIDBFUnlearning
from lit_backdoor.defenses.btidbf.varied_purification import BTIDBFVariedPurification

__all__ = [
    "BTIDBFAdaptiveTraining",
    "BTIDBFDetection",
    "BTIDBFFreshUnlearning",
    "BTIDBFInversion",
    "BTIDBFPartialPurification",
    "BTIDBFPartialUnlearning",
    "BTIDBFPurification",
    "BTIDBFUnlearning",
    "BTIDBFVariedPurification",
    "Decoupling",
    "InversionSettings",
]
