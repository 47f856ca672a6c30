"""Unicorn's inversion: a stamp in a learned space and a mask over the features for every class."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor
from torch.nn import functional as F

from lit_backdoor.errors import check_share
from lit_backdoor.functional.feature_inversion import Bounds, Measures, excess
from lit_backdoor.functional.martini import ssim_loss
from lit_backdoor.models import Classifier, SpaceStamp, UNet
from lit_backdoor.stages.feature_inversion import FeatureInversion

__all__ = ["Unicorn"]


class Unicorn(FeatureInversion):
    r"""Flag classes that a small stamp in a learned space reaches by some of the features (Unicorn).

    To the loss of `FeatureInversion` are added, with P, Q and m of `SpaceStamp`,

    .. math:: 200\, \mathrm{MSE}(Q(P(x)), x) + 10 \max(0, \bar m - \beta) / \beta

    A class's value is the excess of every broken bound less its success rate.

    Deviations: nets, stamp and mask make their steps at the same time (release: ten of stamp and mask for one of the
    nets); P and Q start as the identity, and the stamp within its bound, which the release trains them to; after a scan
    only the most promising classes go on; the threshold is ours, the release decides nothing.

    Args:
        suspect: Path of a suspect bundle, or a classifier; frozen.
        generator: P and Q before training; default a small `UNet`. Release: 32 filters, 4 blocks.
        scan: Share of the epochs in which every class is tried, in (0, 1].
        finalists: Classes that are tried in the others, at least 1.
        threshold: Value below which a class is flagged.
        change: Largest 1 - SSIM of triggered and clean images, > 0. Release: .15.
        spread: Largest deviation of masked features, > 0. Release: 1.
        mask: Largest mean of the mask over the features, in (0, 1). Release: .15.
        stamp: beta, the largest mean of the stamp's mask, in (0, 1). Release: .15.
        success: Success rate from which the class counts as reached, in (0, 1]. Release: .9.
        lr: Learning rate of P and Q. Release: 1e-3.
        mask_lr: Learning rate of mask and stamp. Release: .1.

    Raises:
        ValueError: If a number is out of range; when run, if images are not of the suspect's size.
    """

    def __init__(
        self,
        suspect: str | Classifier,
        generator: UNet | None = None,
        scan: float = 0.4,
        finalists: int = 3,
        threshold: float = -0.9,
        change: float = 0.15,
        spread: float = 1.0,
        mask: float = 0.15,
        stamp: float = 0.15,
        success: float = 0.9,
        lr: float = 1e-3,
        mask_lr: float = 0.1,
    ) -> None:
        super().__init__(suspect, Bounds(success, change, spread, mask), 1.0, threshold, lr, mask_lr)
        if finalists < 1:
            raise ValueError(f"Expected finalists of at least 1, got {finalists}.")
        self.generator = [generator or UNet(base=8, downs=1, attention="none")]  # in a list: it is not trained itself
        self.scan, self.finalists = check_share("scan", scan, closed=True), finalists
        self.stamp = check_share("stamp", stamp)

    def maker(self) -> SpaceStamp:
        """Give the stamp that each class's starts as."""
        suspect, (net,) = self.net.module, self.generator
        return SpaceStamp(copy.deepcopy(net), copy.deepcopy(net), suspect.input_size, len(suspect.mean))

    def configure_optimizers(self) -> Any:
        """Make Adam for nets, stamps and masks."""
        stamps = [weight for name, weight in self.makers.named_parameters() if ".raw_" in name]
        nets = [weight for name, weight in self.makers.named_parameters() if ".raw_" not in name]
        groups = [{"params": nets, "lr": self.lr}, {"params": [*stamps, self.masks], "lr": self.mask_lr}]
        return torch.optim.Adam(groups, betas=(0.5, 0.9))

    def change(self, images: Tensor, triggered: Tensor) -> Tensor:
        """Measure 1 - SSIM."""
        return ssim_loss(images, triggered, window=11)

    @property
    def tried(self) -> Sequence[int]:
        """All classes during the scan, then those of the smallest values."""
        if self.current_epoch < max(1, round(self.scan * (self.trainer.max_epochs or 0))):
            return super().tried
        order = self.only_judged(self.best).argsort(stable=True)  # of the others no value gets smaller any more
        return cast(list[int], order[: self.finalists].tolist())

    def value(self, found: Measures) -> Tensor:
        """Give what classes are compared by: without the likeness, with the stamp's bound."""
        stamps = torch.stack([cast(SpaceStamp, maker).mask.detach().mean() for maker in self.makers])
        return super().value(found) - found.likeness + excess(stamps, self.stamp)

    def measured(self, label: int, images: Tensor, reference: Tensor, raw: Tensor) -> tuple[Tensor, Measures]:
        """Let P and Q undo each other, and keep the stamp small."""
        loss, found = super().measured(label, images, reference, raw)
        maker, normalize = cast(SpaceStamp, self.makers[label]), self.net.module.normalize
        restored = F.mse_loss(normalize(maker.unstamped(images)), normalize(images)).float()
        return loss + 200 * restored + 10 * excess(maker.mask.mean(), self.stamp), found
