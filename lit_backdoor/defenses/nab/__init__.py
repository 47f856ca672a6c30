"""NAB: a backdoor of the defender's own, planted on suspicious rows, suppresses the attacker's.

Liu, Sangiovanni-Vincentelli and Yue, "Beating Backdoor Attack at Its Own Game", ICCV 2023.
"""

from lit_backdoor.defenses.nab.training import NonAdversarialTraining, PseudoLabeling

__all__ = ["NonAdversarialTraining", "PseudoLabeling"]
