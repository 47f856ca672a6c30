"""NPD: a small layer put into the suspect, which itself stays as it is, filters backdoor features out.

Zhu et al., "Neural Polarizer: A Lightweight and Effective Backdoor Defense via Purifying Poisoned Features", NeurIPS
2023.
"""

from lit_backdoor.defenses.npd.polarizer import NeuralPolarizer

__all__ = ["NeuralPolarizer"]
