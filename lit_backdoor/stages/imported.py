"""A suspect from elsewhere: an architecture and a file of weights become a bundle."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from lit_backdoor.models import Classifier
from lit_backdoor.stages.base import Stage
from lit_backdoor.weights import load_weights

__all__ = ["ImportedSuspect"]


class ImportedSuspect(Stage):
    """Read a foreign state dict into a classifier and export it; run by ``predict``.

    Args:
        classifier: The net: a `TimmClassifier`, or a `ForeignClassifier` for other architectures.
        weights: Path of a safetensors file, or of a ``torch.save`` file of tensors; nothing in it is executed.

    Raises:
        ValueError: If the weights do not fit, or the file would execute code.
    """

    views: ClassVar[tuple[str, ...]] = ()
    verb: ClassVar[Literal["fit", "predict"]] = "predict"

    def __init__(self, classifier: Classifier, weights: str) -> None:
        super().__init__()
        self.classifier = classifier
        self.weights = weights

    def build(self) -> None:
        """Load the weights, by the names of the bare net or of the classifier around it."""
        load_weights(self.classifier, self.weights)

    def result(self) -> Classifier:
        """Give the suspect."""
        return self.classifier

    def predict_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
        """Do nothing: importing needs no data."""
