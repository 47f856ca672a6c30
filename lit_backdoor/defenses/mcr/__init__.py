"""Mode connectivity repair: the suspect moves along a curve of low loss toward a fine-tuned copy.

Zhao et al., "Bridging Mode Connectivity in Loss Landscapes and Adversarial Robustness", ICLR 2020.
"""

from lit_backdoor.defenses.mcr.repair import ModeConnectivityRepair

__all__ = ["ModeConnectivityRepair"]
