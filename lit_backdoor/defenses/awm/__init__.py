"""Adversarial weight masking: weights that a worst-case change of images exploits are masked softly.

Chai and Chen, "One-shot Neural Backdoor Erasing via Adversarial Weight Masking", NeurIPS 2022.
"""

from lit_backdoor.defenses.awm.masking import AdversarialWeightMasking

__all__ = ["AdversarialWeightMasking"]
