"""SAU: unlearning of the adversarial examples that the suspect shares with itself as it was given.

Wei et al., "Shared Adversarial Unlearning: Backdoor Mitigation by Unlearning Shared Adversarial Examples", NeurIPS
2023.
"""

from lit_backdoor.defenses.sau.unlearning import SharedAdversarialUnlearning

__all__ = ["SharedAdversarialUnlearning"]
