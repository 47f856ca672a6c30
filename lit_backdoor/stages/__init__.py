"""Stages: LightningModules that each do one step of an attack or a defense, and leave one bundle."""

from lit_backdoor.stages.base import Batch, Outcome, Stage
from lit_backdoor.stages.callbacks import AttackSuccessCallback
from lit_backdoor.stages.evaluation import (
    DetectorEvaluation,
    Evaluation,
    GeneratorEvaluation,
    SelectionEvaluation,
    TriggerEvaluation,
)
from lit_backdoor.stages.evaluation_by_kind import evaluation_of
from lit_backdoor.stages.export import BundleWriter
from lit_backdoor.stages.fine_tune import FineTune, UnlearningFineTune
from lit_backdoor.stages.generator_training import GeneratorTraining
from lit_backdoor.stages.imported import ImportedSuspect
from lit_backdoor.stages.input_detection import InputDetection
from lit_backdoor.stages.poisoned_training import FloodingTraining, LocalGradientAscentTraining, PoisonedTraining
from lit_backdoor.stages.selection import LowestLoss, OracleSelection, SuspiciousSelection
from lit_backdoor.stages.target_detection import TargetDetection, TargetReport, targets_given
from lit_backdoor.stages.target_evaluation import PerturbationEvaluation, TargetEvaluation

__all__ = [
    "AttackSuccessCallback",
    "Batch",
    "BundleWriter",
    "DetectorEvaluation",
    "Evaluation",
    "FineTune",
    "FloodingTraining",
    "GeneratorEvaluation",
    "GeneratorTraining",
    "ImportedSuspect",
    "InputDetection",
    "LocalGradientAscentTraining",
    "LowestLoss",
    "OracleSelection",
    "Outcome",
    "PerturbationEvaluation",
    "PoisonedTraining",
    "SelectionEvaluation",
    "Stage",
    "SuspiciousSelection",
    "TargetDetection",
    "TargetEvaluation",
    "TargetReport",
    "TriggerEvaluation",
    "UnlearningFineTune",
    "evaluation_of",
    "targets_given",
]
