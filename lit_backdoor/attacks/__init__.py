"""Attacks that control training, one file each."""

from lit_backdoor.attacks.ml_mmdr import MultiLevelMMDTraining
from lit_backdoor.attacks.retuning import Retuning

__all__ = ["MultiLevelMMDTraining", "Retuning"]
