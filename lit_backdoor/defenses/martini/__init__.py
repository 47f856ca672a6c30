"""MARTINI: trigger reconstruction by regional transformation of features, and model hardening (Tao et al.)."""

from lit_backdoor.defenses.martini.controls import (
    DecodedOnly,
    NothingReconstructed,
    RenormalizedOnly,
    TransformedOnly,
)
from lit_backdoor.defenses.martini.decoder import DecoderTraining
from lit_backdoor.defenses.martini.detection import MartiniDetection
from lit_backdoor.defenses.martini.hardening import MartiniHardening
from lit_backdoor.defenses.martini.reconstruction import ReconstructionSettings
from lit_backdoor.defenses.martini.schedules import EasiestFirst, InTurn, LabelSpecific, Mixed, Schedule

__all__ = [
    "DecodedOnly",
    "DecoderTraining",
    "EasiestFirst",
    "InTurn",
    "LabelSpecific",
    "MartiniDetection",
    "MartiniHardening",
    "Mixed",
    "NothingReconstructed",
    "ReconstructionSettings",
    "RenormalizedOnly",
    "Schedule",
    "TransformedOnly",
]
