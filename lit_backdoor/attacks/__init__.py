"""Attacks that control training, one file each."""

from lit_backdoor.attacks.lira import LIRATraining
from lit_backdoor.attacks.ml_mmdr import MultiLevelMMDTraining
from lit_backdoor.attacks.retuning import Retuning

__all__ = ["LIRATraining", "MultiLevelMMDTraining", "Retuning"]
