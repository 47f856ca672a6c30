"""PDB: a strong backdoor of the defender's own, with a mapping of labels that can be undone, outdoes the attacker's.

Wei, Zha and Wu, "Mitigating Backdoor Attack by Injecting Proactive Defensive Backdoor", NeurIPS 2024.
"""

from lit_backdoor.defenses.pdb.training import ProactiveTraining

__all__ = ["ProactiveTraining"]
