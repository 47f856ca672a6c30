"""Backdoor attacks on image classifiers and defenses against them, as PyTorch Lightning stages.

Names are loaded when they are first used, so that importing the package costs nothing.
"""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.1.0"

_HOMES = {
    "audit": ("run_audit",),
    "bundle": ("open_bundle", "save_bundle"),
    "data": ("BackdoorDataModule", "PoisonedDataModule", "RootDataModule", "Split", "SyntheticSigns", "wrap"),
    "metrics": ("Accuracy", "AttackSuccessRate", "DegreeOfFeatureCollisions", "RobustAccuracy", "dem", "der"),
    "models": ("Classifier", "ForeignClassifier", "Purified", "TimmClassifier", "UNet", "wrap_classifier"),
    "stages": ("Evaluation", "FineTune", "LowestLoss", "PoisonedTraining", "Stage", "UnlearningFineTune"),
    "stages.callbacks": ("AttackSuccessCallback",),
    "triggers": ("Attack", "LabelPolicy", "Trigger"),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

__all__ = ["__version__", *_HOME_OF]


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"module 'lit_backdoor' has no attribute '{name}'")
    return getattr(importlib.import_module(f"lit_backdoor.{_HOME_OF[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
