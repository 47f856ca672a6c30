"""Nets: classifiers behind one interface, generators, frozen and composed forms."""

from lit_backdoor.models.autoencoder import AutoEncoder
from lit_backdoor.models.base import Classifier
from lit_backdoor.models.compose import Purified
from lit_backdoor.models.cut_encoder import TimmEncoder, TorchvisionEncoder
from lit_backdoor.models.enclosing import Enclosing
from lit_backdoor.models.encoder import ConvEncoder, Encoder
from lit_backdoor.models.foreign import ForeignClassifier, WrappedClassifier, wrap_classifier
from lit_backdoor.models.frozen import Frozen
from lit_backdoor.models.input_detector import InputDetector, PerturbedQueries
from lit_backdoor.models.lite0_encoder import Lite0Encoder
from lit_backdoor.models.loading import load_classifier
from lit_backdoor.models.patterned import LocalPattern, PatternedUNet, WideAndLocal
from lit_backdoor.models.plugged import Plugged
from lit_backdoor.models.saving import save_like
from lit_backdoor.models.space_stamp import SpaceStamp
from lit_backdoor.models.steganography import SecretDecoder, SecretEncoder
from lit_backdoor.models.style_net import StyleNet
from lit_backdoor.models.timm_classifier import TimmClassifier
from lit_backdoor.models.trigger_layers import RegionalTransformation, Renormalization
from lit_backdoor.models.unet import UNet
from lit_backdoor.models.warp_field import WarpField
from lit_backdoor.models.with_head import WithHead

__all__ = [
    "AutoEncoder",
    "Classifier",
    "ConvEncoder",
    "Enclosing",
    "Encoder",
    "ForeignClassifier",
    "Frozen",
    "InputDetector",
    "Lite0Encoder",
    "LocalPattern",
    "PatternedUNet",
    "PerturbedQueries",
    "Plugged",
    "Purified",
    "RegionalTransformation",
    "Renormalization",
    "SecretDecoder",
    "SecretEncoder",
    "SpaceStamp",
    "StyleNet",
    "TimmClassifier",
    "TimmEncoder",
    "TorchvisionEncoder",
    "UNet",
    "WarpField",
    "WideAndLocal",
    "WithHead",
    "WrappedClassifier",
    "load_classifier",
    "save_like",
    "wrap_classifier",
]
