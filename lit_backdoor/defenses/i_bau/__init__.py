"""I-BAU: adversarial unlearning of one change for all images, with the gradient through its search.

Zeng et al., "Adversarial Unlearning of Backdoors via Implicit Hypergradient", ICLR 2022.
"""

from lit_backdoor.defenses.i_bau.unlearning import ImplicitUnlearning

__all__ = ["ImplicitUnlearning"]
