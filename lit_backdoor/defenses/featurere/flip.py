"""FeatureRE's repair: the features by which a trigger acts are flipped."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from lit_backdoor.defenses.featurere.flipped import Flipped
from lit_backdoor.models import Classifier
from lit_backdoor.stages import OneShot
from lit_backdoor.stages.inputs import Takes

__all__ = ["FeatureFlip"]


class FeatureFlip(OneShot):
    r"""Flip the features under the masks of the flagged classes (FeatureRE): :math:`(1 - m) \odot h - m \odot h`.

    Where no class was flagged the suspect stays as it is.

    Args:
        suspect: Path of a suspect bundle, or a classifier.
        masks: Path of a bundle of target classes with masks, as `FeatureRE` exports, or masks ``[N, ...]`` over the
            features, in [0, 1].

    Raises:
        ValueError: When run, if there are no masks, or they are not of the features' shape.
    """

    takes: ClassVar[Takes] = {**OneShot.takes, "masks": ("targets",)}

    def __init__(self, suspect: str | Classifier, masks: str | Tensor) -> None:
        super().__init__(suspect)
        self.given(masks=masks)

    def build(self) -> None:
        """Open the suspect and the masks."""
        super().build()
        report = self.bundle("masks")
        found = self.arguments["masks"] if report is None else report.tensors().get("masks")
        if not isinstance(found, Tensor):
            raise ValueError(
                f"Expected masks over the features, as FeatureRE exports them, got none from {self.arguments['masks']}."
            )
        self.register_buffer("flipping", found.float())

    @property
    def idle(self) -> bool:
        """Whether no class was flagged."""
        return len(self.flipping) == 0

    def work(self) -> None:
        """Flip."""
        flipped = Flipped(self.classifier)
        if self.flipping.shape[1:] != flipped.factor.shape:
            raise ValueError(
                f"Expected masks of the shape of the suspect's features, {list(flipped.factor.shape)}, got "
                f"{list(self.flipping.shape[1:])}. Invert on this suspect."
            )
        flipped.flip(self.flipping)
        self.classifier = flipped.to(self.device)
