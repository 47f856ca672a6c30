"""PIPD: poisoned rows are isolated progressively, by the channels that the first ones excite.

Chen, Wu and Zhou, "Progressive Poisoned Data Isolation for Training-Time Backdoor Defense", AAAI 2024.
"""

from lit_backdoor.defenses.pipd.isolation import ProgressiveIsolation

__all__ = ["ProgressiveIsolation"]
