"""SCALE-UP: an input that keeps its class when its pixel values are multiplied carries a trigger.

Guo et al., "SCALE-UP: An Efficient Black-box Input-level Backdoor Detection via Analyzing Scaled Prediction
Consistency", ICLR 2023.
"""

from lit_backdoor.defenses.scale_up.detection import ScaleUp
from lit_backdoor.defenses.scale_up.scaled import Scaled

__all__ = ["ScaleUp", "Scaled"]
