"""What is counted: each metric as a function and as a ``torchmetrics.Metric``; they take tensors and know no attack.

Counts are int64 and sums run over all processes. A share without a denominator is NaN, never zero. Every update takes
an optional ``mask``, bool ``[B]``, of the rows that count; with padded loaders that is the batch's ``valid``.
"""

from lit_backdoor.metrics.classification import (
    Accuracy,
    AttackSuccessRate,
    RobustAccuracy,
    accuracy,
    attack_success_rate,
    robust_accuracy,
)
from lit_backdoor.metrics.detection import (
    InputDetectionScores,
    SelectionScores,
    input_detection_scores,
    selection_scores,
)
from lit_backdoor.metrics.effectiveness import DefenseEffectivenessRating, DefenseEfficacyMeasure, dem, der
from lit_backdoor.metrics.features import (
    DegreeOfFeatureCollisions,
    FeatureDistance,
    degree_of_feature_collisions,
    feature_distance,
)
from lit_backdoor.metrics.latents import TacFidelity, tac_fidelity
from lit_backdoor.metrics.targets import DetectionSuccessRate, TargetVotes, detection_success_rate, target_votes

__all__ = [
    "Accuracy",
    "AttackSuccessRate",
    "DefenseEffectivenessRating",
    "DefenseEfficacyMeasure",
    "DegreeOfFeatureCollisions",
    "DetectionSuccessRate",
    "FeatureDistance",
    "InputDetectionScores",
    "RobustAccuracy",
    "SelectionScores",
    "TacFidelity",
    "TargetVotes",
    "accuracy",
    "attack_success_rate",
    "degree_of_feature_collisions",
    "dem",
    "der",
    "detection_success_rate",
    "feature_distance",
    "input_detection_scores",
    "robust_accuracy",
    "selection_scores",
    "tac_fidelity",
    "target_votes",
]
