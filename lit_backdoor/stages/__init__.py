"""Stages: LightningModules that each do one step of an attack or a defense, and leave one bundle."""

from lit_backdoor.stages.base import Batch, Outcome, Stage
from lit_backdoor.stages.evaluation import Evaluation, GeneratorEvaluation, SelectionEvaluation, evaluation_of
from lit_backdoor.stages.export import BundleWriter
from lit_backdoor.stages.fine_tune import FineTune, UnlearningFineTune
from lit_backdoor.stages.generator_training import GeneratorTraining
from lit_backdoor.stages.poisoned_training import FloodingTraining, LocalGradientAscentTraining, PoisonedTraining
from lit_backdoor.stages.selection import LowestLoss, OracleSelection, SuspiciousSelection

__all__ = [
    "Batch",
    "BundleWriter",
    "Evaluation",
    "FineTune",
    "FloodingTraining",
    "GeneratorEvaluation",
    "GeneratorTraining",
    "LocalGradientAscentTraining",
    "LowestLoss",
    "OracleSelection",
    "Outcome",
    "PoisonedTraining",
    "SelectionEvaluation",
    "Stage",
    "SuspiciousSelection",
    "UnlearningFineTune",
    "evaluation_of",
]
