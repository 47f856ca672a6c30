"""Attacks that are data alone: triggers, label policies and the plan that puts them together."""

from lit_backdoor.triggers.base import (
    AllToAll,
    AllToOne,
    Attack,
    CleanLabel,
    LabelPolicy,
    OneToOne,
    Role,
    Trigger,
)
from lit_backdoor.triggers.batt import Rotation
from lit_backdoor.triggers.blend import Blend
from lit_backdoor.triggers.filter import Filter
from lit_backdoor.triggers.generated import GeneratorTrigger, stamped_by
from lit_backdoor.triggers.inverted import AddedPattern, MaskedPattern, OneOf
from lit_backdoor.triggers.named import named_attack
from lit_backdoor.triggers.noise import NoisyCover
from lit_backdoor.triggers.painted import PaintedMask
from lit_backdoor.triggers.paired import PairedTrigger
from lit_backdoor.triggers.patch import Patch
from lit_backdoor.triggers.regional import RegionalTrigger
from lit_backdoor.triggers.semantic import SemanticTrigger
from lit_backdoor.triggers.sig import Sig
from lit_backdoor.triggers.wanet import WaNet

__all__ = [
    "AddedPattern",
    "AllToAll",
    "AllToOne",
    "Attack",
    "Blend",
    "CleanLabel",
    "Filter",
    "GeneratorTrigger",
    "LabelPolicy",
    "MaskedPattern",
    "NoisyCover",
    "OneOf",
    "OneToOne",
    "PaintedMask",
    "PairedTrigger",
    "Patch",
    "RegionalTrigger",
    "Role",
    "Rotation",
    "SemanticTrigger",
    "Sig",
    "Trigger",
    "WaNet",
    "named_attack",
    "stamped_by",
]
