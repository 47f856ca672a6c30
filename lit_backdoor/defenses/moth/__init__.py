"""MOTH: the suspect is hardened against triggers between its classes, so that all classes lie far apart.

Tao et al., "Model Orthogonalization: Class Distance Hardening in Neural Networks for Better Security", S&P 2022.
"""

from lit_backdoor.defenses.moth.hardening import Orthogonalization

__all__ = ["Orthogonalization"]
