"""SEAM: the suspect forgets its task by wrong labels, and recovers it from clean images, without the backdoor.

Zhu et al., "Selective Amnesia: On Efficient, High-Fidelity and Blind Suppression of Backdoor Effects in Trojaned
Machine Learning Models", IEEE S&P 2023.
"""

from lit_backdoor.defenses.seam.amnesia import SelectiveAmnesia

__all__ = ["SelectiveAmnesia"]
