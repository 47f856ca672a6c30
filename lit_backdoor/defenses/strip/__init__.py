"""STRIP: an input whose class hardly changes when other images are superimposed carries a trigger.

Gao et al., "STRIP: A Defence Against Trojan Attacks on Deep Neural Networks", ACSAC 2019.
"""

from lit_backdoor.defenses.strip.detection import STRIP
from lit_backdoor.defenses.strip.superimposed import Superimposed

__all__ = ["STRIP", "Superimposed"]
