"""Februus' training: a net that paints in, and the threshold on the heat."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import torch
from lightning.pytorch.cli import OptimizerCallable
from torch import Tensor
from torch.optim import Optimizer

from lit_backdoor.defenses.februus.surgery import Surgery
from lit_backdoor.errors import check_share
from lit_backdoor.models import Classifier, UNet
from lit_backdoor.stages import Batch, Mitigation
from lit_backdoor.stages.optim import adam_for_generators

__all__ = ["Februus"]

THRESHOLDS = tuple(step / 20 for step in range(19, 5, -1))  # .95 to .3


class Februus(Mitigation):
    """Train a net that paints in holes of root images, and put it before the frozen suspect (Februus).

    In use, holes are where Grad-CAM of the predicted class is above a threshold. It is lowered from .95 to .3 at most,
    for as long as the accuracy on root images holds.

    Deviations: the net is a U-Net that minimizes the mean absolute error in holes, where the paper trains a GAN on many
    images; the release has one threshold.

    Args:
        suspect: Path of a suspect bundle, or a classifier; frozen.
        generator: The net that paints in; default `UNet`.
        largest: Largest side of a hole in training, as a share of the image's, in (0, 1).
        tolerance: Share of the root accuracy that removing may cost, in (0, 1).
        threshold: Threshold on the heat, in (0, 1); None lets root images choose. Release: .7.
        optimizer: Makes the optimizer; default Adam 1e-3.

    Raises:
        ValueError: If a share is out of range; when run, if the suspect's features have no height and width.
    """

    selection: ClassVar[Literal["none", "root", "oracle"]] = "root"

    def __init__(
        self,
        suspect: str | Classifier,
        generator: UNet | None = None,
        largest: float = 0.6,
        tolerance: float = 0.05,
        threshold: float | None = None,
        optimizer: OptimizerCallable = adam_for_generators,
    ) -> None:
        super().__init__(suspect)
        self.generator = [generator or UNet()]  # in a list: it is part of the result
        self.largest = check_share("largest", largest)
        self.tolerance = check_share("tolerance", tolerance)
        self.threshold = None if threshold is None else check_share("threshold", threshold)
        self.optimizer = optimizer
        self._stale = True  # whether the net changed since the threshold was chosen

    def build(self) -> None:
        """Open the suspect and put the net before it."""
        super().build()
        self.classifier: Surgery = Surgery(self.generator[0], self.classifier.requires_grad_(False))
        self.classifier.holes(self.classifier.example())  # refuses features without height and width

    def begin_epoch(self) -> None:
        """Keep the suspect in eval mode."""
        self.classifier.classifier.eval()

    def configure_optimizers(self) -> Optimizer:
        """Make the optimizer."""
        return self.optimizer(self.classifier.purifier.parameters())

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Compute the mean absolute error in drawn holes, one in each image."""
        images = batch["image"]
        holes = drawn_holes(len(images), images.shape[-2], images.shape[-1], self.largest).to(images.device)
        error = (self.classifier.painted(images, holes) - images).abs().mean(1, keepdim=True)
        return {"loss": error[holes].mean()}

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> int | None:
        """Note that the net changes."""
        self._stale = True
        return super().on_train_batch_start(batch, batch_idx)

    def on_train_end(self) -> None:
        """Choose the threshold."""
        self.result()

    def result(self) -> Classifier:
        """Give the purified suspect; the threshold is chosen anew if the net changed."""
        if self.threshold is not None:
            self.classifier.threshold.fill_(self.threshold)
        elif self._stale:
            least = (1 - self.tolerance) * self.accuracy(torch.inf)
            chosen = torch.inf
            for threshold in THRESHOLDS:
                if self.accuracy(threshold) < least:
                    break
                chosen = threshold
            self.classifier.threshold.fill_(chosen)
            self._stale = False
        return self.classifier

    def accuracy(self, threshold: float) -> float:
        """Measure the root accuracy with a threshold."""
        self.classifier.threshold.fill_(threshold)
        return self.root_accuracy(self.classifier)

    def numbers(self) -> dict[str, Any]:
        """Give the threshold; None where nothing may be removed."""
        threshold = float(self.classifier.threshold)
        return {"threshold": threshold if threshold <= 1 else None}


def drawn_holes(count: int, height: int, width: int, largest: float) -> Tensor:
    """Draw a rectangle for each image, bool ``[count, 1, height, width]``; sides up to a share of the image's."""
    inside = torch.ones(count, 1, 1, 1, dtype=torch.bool)
    for axis, side in ((2, height), (3, width)):
        length = 1 + torch.rand(count) * max(0.0, largest * side - 1)
        start = torch.rand(count) * (side - length)
        places = torch.arange(side).view(1, -1) + 0.5
        covered = (places > start[:, None].floor()) & (places < (start[:, None].floor() + length[:, None].ceil()))
        inside = inside & covered.view(count, 1, *((-1, 1) if axis == 2 else (1, -1)))
    return inside
