"""Februus: where the suspect looks is cut out of an image and painted in again.

Doan et al., "Februus: Input Purification Defense Against Trojan Attacks on Deep Neural Network Systems", ACSAC 2020.
"""

from lit_backdoor.defenses.februus.purification import Februus
from lit_backdoor.defenses.februus.surgery import Surgery

__all__ = ["Februus", "Surgery"]
