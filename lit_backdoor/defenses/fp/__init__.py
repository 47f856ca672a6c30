"""Fine-pruning: units that are silent on clean images are pruned, then the rest is fine-tuned.

Liu, Dolan-Gavitt and Garg, "Fine-Pruning: Defending Against Backdooring Attacks on Deep Neural Networks", RAID 2018.
"""

from lit_backdoor.defenses.fp.fine_tune import FPFineTune
from lit_backdoor.defenses.fp.pruning import FPPruning

__all__ = ["FPFineTune", "FPPruning"]
