"""Nets: classifiers behind one interface, generators, frozen and composed forms."""

from lit_backdoor.models.base import Classifier
from lit_backdoor.models.compose import Purified
from lit_backdoor.models.foreign import ForeignClassifier, WrappedClassifier, wrap_classifier
from lit_backdoor.models.frozen import Frozen
from lit_backdoor.models.loading import load_classifier
from lit_backdoor.models.patterned import LocalPattern, PatternedUNet, WideAndLocal
from lit_backdoor.models.timm_classifier import TimmClassifier
from lit_backdoor.models.unet import UNet
from lit_backdoor.models.warp_field import WarpField

__all__ = [
    "Classifier",
    "ForeignClassifier",
    "Frozen",
    "LocalPattern",
    "PatternedUNet",
    "Purified",
    "TimmClassifier",
    "UNet",
    "WarpField",
    "WideAndLocal",
    "WrappedClassifier",
    "load_classifier",
    "wrap_classifier",
]
