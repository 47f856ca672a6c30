"""Reconstructive neuron pruning: the suspect unlearns clean images, and channels that hinder recovery are pruned.

Li et al., "Reconstructive Neuron Pruning for Backdoor Defense", ICML 2023.
"""

from lit_backdoor.defenses.rnp.recovery import RNPOracle, RNPRecovery
from lit_backdoor.defenses.rnp.unlearning import RNPUnlearning

__all__ = ["RNPOracle", "RNPRecovery", "RNPUnlearning"]
