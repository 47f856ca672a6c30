"""BTI-DBF: invert a trigger by decoupling benign features, then unlearn it, purify inputs of it, or detect it.

Xu et al., "Towards Reliable and Efficient Backdoor Trigger Inversion via Decoupling Benign Features", ICLR 2024.
"""

from lit_backdoor.defenses.btidbf.adaptive import AdaptiveTraining
from lit_backdoor.defenses.btidbf.detection import Detection
from lit_backdoor.defenses.btidbf.inversion import TriggerInversion
from lit_backdoor.defenses.btidbf.purification import Purification
from lit_backdoor.defenses.btidbf.settings import Decoupling, Inversion
from lit_backdoor.defenses.btidbf.unlearning import Unlearning
from lit_backdoor.defenses.btidbf.varied_purification import VariedPurification

__all__ = [
    "AdaptiveTraining",
    "Decoupling",
    "Detection",
    "Inversion",
    "Purification",
    "TriggerInversion",
    "Unlearning",
    "VariedPurification",
]
