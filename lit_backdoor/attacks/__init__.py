"""Attacks that control training, or make their trigger before it, one file each."""

from lit_backdoor.attacks.combat import COMBATTraining
from lit_backdoor.attacks.dfst import DFSTTraining
from lit_backdoor.attacks.grond import GrondCrafting, GrondTraining
from lit_backdoor.attacks.input_aware import InputAwareMask, InputAwareTraining
from lit_backdoor.attacks.issba import ISSBATraining
from lit_backdoor.attacks.label_consistent import LabelConsistentCrafting
from lit_backdoor.attacks.lira import LIRATraining
from lit_backdoor.attacks.ml_mmdr import MultiLevelMMDTraining
from lit_backdoor.attacks.narcissus import NarcissusCrafting
from lit_backdoor.attacks.redrawn import RedrawnTraining
from lit_backdoor.attacks.retuning import Retuning
from lit_backdoor.attacks.trigger_free import TriggerFreeTuning
from lit_backdoor.attacks.trojannn import TrojanNNCrafting

__all__ = [
    "COMBATTraining",
    "DFSTTraining",
    "GrondCrafting",
    "GrondTraining",
    "ISSBATraining",
    "InputAwareMask",
    "InputAwareTraining",
    "LIRATraining",
    "LabelConsistentCrafting",
    "MultiLevelMMDTraining",
    "NarcissusCrafting",
    "RedrawnTraining",
    "Retuning",
    "TriggerFreeTuning",
    "TrojanNNCrafting",
]
