"""Stages: LightningModules that each do one step of an attack or a defense, and export one bundle; roles they share."""

from lit_backdoor.stages.activations import ActivationSpace
from lit_backdoor.stages.anchored import Anchored
from lit_backdoor.stages.attack_training import AttackTraining, JointTraining
from lit_backdoor.stages.averaged import AveragedFineTune
from lit_backdoor.stages.base import Batch, Outcome, Stage
from lit_backdoor.stages.bundle_writer import BundleWriter
from lit_backdoor.stages.calibrated_detection import CalibratedDetection
from lit_backdoor.stages.callbacks import AttackSuccessCallback
from lit_backdoor.stages.compiled import CompiledNets
from lit_backdoor.stages.from_scratch import FromScratch
from lit_backdoor.stages.generator_training import GeneratorTraining
from lit_backdoor.stages.given import GivenSuspect
from lit_backdoor.stages.imported import ImportedSuspect
from lit_backdoor.stages.input_detection import InputDetection
from lit_backdoor.stages.input_table import InputTable
from lit_backdoor.stages.mask_pruning import MaskPruning, OracleThreshold
from lit_backdoor.stages.one_shot import OneShot
from lit_backdoor.stages.own_attack import OwnAttack
from lit_backdoor.stages.phased import Phased, Span, make_plan
from lit_backdoor.stages.poisoned_training import FloodingTraining, LocalGradientAscentTraining, PoisonedTraining
from lit_backdoor.stages.pruning import Pruning
from lit_backdoor.stages.repair import FineTune, Mitigation
from lit_backdoor.stages.selection import LowestLoss, OracleSelection, SuspiciousSelection
from lit_backdoor.stages.stamp_search import StampSearch
from lit_backdoor.stages.target_detection import TargetDetection, TargetReport, targets_given
from lit_backdoor.stages.testing import Evaluation
from lit_backdoor.stages.trigger_search import TriggerSearch
from lit_backdoor.stages.trigger_training import TriggerCrafting, TriggerTraining
from lit_backdoor.stages.unlearning import (
    GeneratedFineTune,
    HalfGeneratedFineTune,
    StampedUnlearning,
    Unlearning,
    UnlearningFineTune,
)

__all__ = [
    "ActivationSpace",
    "Anchored",
    "AttackSuccessCallback",
    "AttackTraining",
    "AveragedFineTune",
    "Batch",
    "BundleWriter",
    "CalibratedDetection",
    "CompiledNets",
    "Evaluation",
    "FineTune",
    "FloodingTraining",
    "FromScratch",
    "GeneratedFineTune",
    "GeneratorTraining",
    "GivenSuspect",
    "HalfGeneratedFineTune",
    "ImportedSuspect",
    "InputDetection",
    "InputTable",
    "JointTraining",
    "LocalGradientAscentTraining",
    "LowestLoss",
    "MaskPruning",
    "Mitigation",
    "OneShot",
    "OracleSelection",
    "OracleThreshold",
    "Outcome",
    "OwnAttack",
    "Phased",
    "PoisonedTraining",
    "Pruning",
    "Span",
    "Stage",
    "StampSearch",
    "StampedUnlearning",
    "SuspiciousSelection",
    "TargetDetection",
    "TargetReport",
    "TriggerCrafting",
    "TriggerSearch",
    "TriggerTraining",
    "Unlearning",
    "UnlearningFineTune",
    "make_plan",
    "targets_given",
]
