"""Evaluators: one for each kind of result; stages make theirs for every pass over the test images."""

from lit_backdoor.stages.evaluation.base import Evaluator
from lit_backdoor.stages.evaluation.classifier import ClassifierEvaluator
from lit_backdoor.stages.evaluation.decoder import DecoderEvaluator
from lit_backdoor.stages.evaluation.generator import GeneratorEvaluator
from lit_backdoor.stages.evaluation.inputs import InputEvaluator
from lit_backdoor.stages.evaluation.reconstruction import ReconstructionEvaluator
from lit_backdoor.stages.evaluation.selection import SelectionEvaluator
from lit_backdoor.stages.evaluation.stamp import StampEvaluator
from lit_backdoor.stages.evaluation.targets import PerturbationEvaluator, TargetEvaluator
from lit_backdoor.stages.evaluation.trigger import TriggerEvaluator

__all__ = [
    "ClassifierEvaluator",
    "DecoderEvaluator",
    "Evaluator",
    "GeneratorEvaluator",
    "InputEvaluator",
    "PerturbationEvaluator",
    "ReconstructionEvaluator",
    "SelectionEvaluator",
    "StampEvaluator",
    "TargetEvaluator",
    "TriggerEvaluator",
]
