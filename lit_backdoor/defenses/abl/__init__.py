"""Anti-backdoor learning: rows that are learned too fast are isolated while training anew, and unlearned at its end.

Li et al., "Anti-Backdoor Learning: Training Clean Models on Poisoned Data", NeurIPS 2021.
"""

from lit_backdoor.defenses.abl.training import ABLAscent, ABLIsolation, ABLTraining, ABLUnlearning

__all__ = ["ABLAscent", "ABLIsolation", "ABLTraining", "ABLUnlearning"]
