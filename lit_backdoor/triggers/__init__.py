"""Attacks that are data alone: triggers, label policies and the plan that puts them together."""

from lit_backdoor.triggers.adap_blend import AdapBlend
from lit_backdoor.triggers.adap_patch import AdapPatch
from lit_backdoor.triggers.base import (
    AllToAll,
    AllToOne,
    Attack,
    CleanLabel,
    LabelPolicy,
    OneToOne,
    Role,
    SomeToOne,
    Trigger,
)
from lit_backdoor.triggers.batt import Rotation
from lit_backdoor.triggers.belt import Belt
from lit_backdoor.triggers.blend import Blend
from lit_backdoor.triggers.bpp import Bpp
from lit_backdoor.triggers.chessboard import Chessboard
from lit_backdoor.triggers.composite import Composite
from lit_backdoor.triggers.ctrl import Ctrl
from lit_backdoor.triggers.dynamic import DynamicPatch
from lit_backdoor.triggers.filter import Filter
from lit_backdoor.triggers.ftrojan import FTrojan
from lit_backdoor.triggers.generated import GeneratorTrigger, stamped_by
from lit_backdoor.triggers.handwritten import HandwrittenDigits
from lit_backdoor.triggers.input_aware import InputAware
from lit_backdoor.triggers.inverted import AddedPattern, MaskedPattern, OneOf
from lit_backdoor.triggers.label_consistent import LabelConsistent
from lit_backdoor.triggers.learned import Learned, LearnedPatch, UniversalNoise
from lit_backdoor.triggers.low_frequency import LowFrequency
from lit_backdoor.triggers.named import named_attack
from lit_backdoor.triggers.noise import NoisyCover
from lit_backdoor.triggers.painted import PaintedMask
from lit_backdoor.triggers.paired import PairedTrigger
from lit_backdoor.triggers.patch import Patch
from lit_backdoor.triggers.reflection import Reflection
from lit_backdoor.triggers.regional import RegionalTrigger
from lit_backdoor.triggers.secret import Secret
from lit_backdoor.triggers.semantic import SemanticTrigger
from lit_backdoor.triggers.sig import Sig
from lit_backdoor.triggers.smooth_noise import SmoothNoise
from lit_backdoor.triggers.stylized import Stylized
from lit_backdoor.triggers.wanet import WaNet

__all__ = [
    "AdapBlend",
    "AdapPatch",
    "AddedPattern",
    "AllToAll",
    "AllToOne",
    "Attack",
    "Belt",
    "Blend",
    "Bpp",
    "Chessboard",
    "CleanLabel",
    "Composite",
    "Ctrl",
    "DynamicPatch",
    "FTrojan",
    "Filter",
    "GeneratorTrigger",
    "HandwrittenDigits",
    "InputAware",
    "LabelConsistent",
    "LabelPolicy",
    "Learned",
    "LearnedPatch",
    "LowFrequency",
    "MaskedPattern",
    "NoisyCover",
    "OneOf",
    "OneToOne",
    "PaintedMask",
    "PairedTrigger",
    "Patch",
    "Reflection",
    "RegionalTrigger",
    "Role",
    "Rotation",
    "Secret",
    "SemanticTrigger",
    "Sig",
    "SmoothNoise",
    "SomeToOne",
    "Stylized",
    "Trigger",
    "UniversalNoise",
    "WaNet",
    "named_attack",
    "stamped_by",
]
