"""Attacks that control training, one file each."""

from lit_backdoor.attacks.lira import LIRATraining
from lit_backdoor.attacks.ml_mmdr import MultiLevelMMDTraining

__all__ = ["LIRATraining", "MultiLevelMMDTraining"]
