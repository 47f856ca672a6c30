"""FeatureRE's inversion: a generator and a mask over the features for every class."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from lit_backdoor.functional import feature_inversion as inversion
from lit_backdoor.functional.feature_inversion import Bounds, Measures
from lit_backdoor.models import Classifier, UNet
from lit_backdoor.stages.feature_inversion import FeatureInversion

__all__ = ["FeatureRE"]


class FeatureRE(FeatureInversion):
    """Flag classes that a generator reaches by few features, which it brings to one point (FeatureRE).

    During a warm-up only the generator is trained, to reach the class; classes are compared by the epochs after it.

    Deviations: generator and mask make their steps on the same images at the same time, and the features outside the
    mask are those of clean images of the batch, which spares two of three passes through the suspect.

    Args:
        suspect: Path of a suspect bundle, or a classifier; frozen.
        generator: The net of each class before training; default a small `UNet`. Release: 32 filters, 4 blocks.
        warmup: Share of the epochs in which only the generator is trained, in [0, 1). Release: .2.
        threshold: Value below which a class is flagged. Release: -.75.
        change: Largest mean squared change of normalized pixels, > 0. Release: .15.
        spread: Largest deviation of masked features, > 0. Release: 1.
        mask: Largest mean of the mask, in (0, 1). Release: .03.
        success: Success rate from which the class counts as reached, in (0, 1]. Release: .9.
        lr: Learning rate of the generators. Release: 1e-3.
        mask_lr: Learning rate of the masks. Release: .1.

    Raises:
        ValueError: If a number is out of range.
    """

    def __init__(
        self,
        suspect: str | Classifier,
        generator: UNet | None = None,
        warmup: float = 0.2,
        threshold: float = -0.75,
        change: float = 0.15,
        spread: float = 1.0,
        mask: float = 0.03,
        success: float = 0.9,
        lr: float = 1e-3,
        mask_lr: float = 0.1,
    ) -> None:
        super().__init__(suspect, Bounds(success, change, spread, mask), 5.0, threshold, lr, mask_lr)
        if not 0 <= warmup < 1:
            raise ValueError(f"Expected warmup in [0, 1), got {warmup}.")
        self.generator = [generator or UNet(base=8, downs=2, attention="none")]  # in a list: it is not trained itself
        self.warmup = warmup

    def maker(self) -> UNet:
        """Give the net that each class's starts as."""
        return self.generator[0]

    def change(self, images: Tensor, triggered: Tensor) -> Tensor:
        """Measure the mean squared change of normalized pixels."""
        normalize = self.net.module.normalize
        return F.mse_loss(normalize(triggered), normalize(images)).float()

    @property
    def counted(self) -> bool:
        """Whether the warm-up is over."""
        return self.current_epoch >= round(self.warmup * (self.trainer.max_epochs or 0))

    def measured(self, label: int, images: Tensor, reference: Tensor, raw: Tensor) -> tuple[Tensor, Measures]:
        """Let the generator reach the class without a mask during the warm-up."""
        if self.counted:
            return super().measured(label, images, reference, raw)
        suspect, triggered = self.net.module, self.makers[label](images)
        features = suspect.features(triggered)
        logits, change = suspect.head(features).float(), self.change(images, triggered)
        target = torch.full((len(images),), label, device=images.device)
        loss = F.cross_entropy(logits, target) + 100 * change * (change > self.bounds.change) + 0 * raw.sum()
        found = Measures(
            (logits.argmax(1) == label).float().mean(),
            inversion.likeness(features, self.centers[label]),
            change,
            torch.tensor(2 * self.bounds.spread, device=images.device),
            torch.tensor(1.0, device=images.device),
        )
        return loss, found
