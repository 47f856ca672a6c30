"""Adversarial neuron pruning: channels that become backdoored under worst-case weight noise are pruned.

Wu and Wang, "Adversarial Neuron Pruning Purifies Backdoored Deep Models", NeurIPS 2021.
"""

from lit_backdoor.defenses.anp.pruning import ANP, ANPOracle

__all__ = ["ANP", "ANPOracle"]
