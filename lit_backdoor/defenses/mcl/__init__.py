"""MCL: features of triggered images are pulled toward what the suspect makes of the clean ones.

Yue et al., "Model-Contrastive Learning for Backdoor Elimination", ACM MM 2023.
"""

from lit_backdoor.defenses.mcl.purification import ModelContrast

__all__ = ["ModelContrast"]
