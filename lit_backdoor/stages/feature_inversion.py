"""Inversion of a trigger for every class of a suspect, with a mask over its features."""

from __future__ import annotations

import copy
import dataclasses
from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lit_backdoor.errors import check_share
from lit_backdoor.functional import feature_inversion as inversion
from lit_backdoor.functional.decoupling import soft_mask
from lit_backdoor.functional.feature_inversion import Bounds, Measures
from lit_backdoor.models import Classifier, Frozen, SpaceStamp, UNet
from lit_backdoor.models.base import evaluating
from lit_backdoor.stages.base import Batch, Outcome
from lit_backdoor.stages.target_detection import TargetDetection, TargetReport
from lit_backdoor.triggers import GeneratorTrigger, Trigger

__all__ = ["FeatureInversion"]


class FeatureInversion(TargetDetection):
    """Train for each class a net that triggers images, and a mask over the features by which the trigger acts.

    The net minimizes `generator_loss` on images of other classes, whose features outside the mask are replaced by those
    of other clean images; the mask minimizes `mask_loss`. Both make one step per batch. A class's statistic is the
    smallest `value` of an epoch; it is flagged below a threshold. Exports, besides a report, the flagged classes'
    ``masks``. A subclass makes the net.

    Args:
        suspect: Path of a suspect bundle, or a classifier; frozen.
        bounds: What a trigger must satisfy.
        weight: Weight of the likeness to clean images of the class.
        threshold: Value below which a class is flagged.
        lr: Learning rate of the nets. Releases: 1e-3.
        mask_lr: Learning rate of the masks. Releases: .1.

    Raises:
        ValueError: If a number is out of range.
    """

    sums: Tensor
    last: Tensor
    best: Tensor

    def __init__(
        self, suspect: str | Classifier, bounds: Bounds, weight: float, threshold: float, lr: float, mask_lr: float
    ) -> None:
        super().__init__(suspect)
        check_share("success", bounds.success, closed=True)
        check_share("mask", bounds.mask)
        numbers = {"change": bounds.change, "spread": bounds.spread, "lr": lr, "mask_lr": mask_lr}
        for name, value in numbers.items():
            if not value > 0:
                raise ValueError(f"Expected {name} > 0, got {value}.")
        self.bounds, self.weight, self.threshold = bounds, weight, threshold
        self.lr, self.mask_lr = lr, mask_lr

    # What a subclass says.

    @abstractmethod
    def maker(self) -> UNet | SpaceStamp:
        """Make the net that triggers images; called once per class, every class starts alike."""
        raise NotImplementedError

    @abstractmethod
    def change(self, images: Tensor, triggered: Tensor) -> Tensor:
        """Measure how much triggering changes images."""
        raise NotImplementedError

    def value(self, found: Measures) -> Tensor:
        """Give what classes are compared by, small for a backdoor."""
        return inversion.mixed_value(found, self.bounds)

    @property
    def counted(self) -> bool:
        """Whether classes are compared by the current epoch."""
        return True

    @property
    def tried(self) -> Sequence[int]:
        """The classes whose triggers are trained in the current epoch."""
        return range(len(self.best))

    def measured(self, label: int, images: Tensor, reference: Tensor, raw: Tensor) -> tuple[Tensor, Measures]:
        """Trigger images of other classes; give the loss of the class's net and mask, and the measures."""
        suspect, mask = self.net.module, soft_mask(raw)
        triggered = self.makers[label](images)
        features = suspect.features(triggered)
        logits = suspect.head(inversion.mixed(features, reference, mask.detach())).float()
        target = torch.full((len(images),), label, device=images.device)
        found = Measures(
            (logits.argmax(1) == label).float().mean(),
            inversion.likeness(features, self.centers[label]),
            self.change(images, triggered),
            inversion.masked_spread(features, mask.detach()),
            mask.mean(),
        )
        last = Measures(*self.last[label])
        loss = inversion.generator_loss(F.cross_entropy(logits, target), found, self.bounds, last, self.weight)
        masked = suspect.head(inversion.mixed(features.detach(), reference, mask))
        return loss + inversion.mask_loss(masked, target, mask, self.bounds.mask), found

    # The run.

    def build(self) -> None:
        """Open the suspect, and make nets and masks."""
        self.net: Frozen[Classifier] = Frozen(self.open_classifier())
        suspect = self.net.module
        with evaluating(suspect):
            shape = suspect.features(suspect.example()).shape[1:]
        first, count = self.maker(), suspect.num_classes
        self.makers = nn.ModuleList(copy.deepcopy(first) for _ in range(count))
        self.masks = nn.Parameter(torch.ones(count, *shape))  # before `soft_mask`
        self.register_buffer("sums", torch.zeros(count, 1 + len(Measures._fields)))  # of this epoch, and rows
        start = Measures(0.0, 0.0, 2 * self.bounds.change, 2 * self.bounds.spread, 1.0)  # type: ignore[arg-type]
        self.register_buffer("last", torch.tensor(start).repeat(count, 1))
        self.register_buffer("best", torch.full((count,), torch.inf))

    def on_fit_start(self) -> None:
        """Measure the mean features of each class of the root set."""
        super().on_fit_start()
        suspect = self.net.module
        parts = [
            (suspect.features(batch["image"]).float()[batch["valid"]], batch["label"][batch["valid"]])
            for batch in self.passes("root", suspect)
        ]
        features, labels = (torch.cat(column) for column in zip(*parts, strict=True))
        counts = labels.bincount(minlength=suspect.num_classes).clamp(min=1)
        sums = features.new_zeros(self.masks.shape).index_add_(0, labels, features)
        self.centers = sums / counts.view(-1, *(1,) * (sums.ndim - 1))

    def configure_optimizers(self) -> Any:
        """Make Adam for nets and masks; its steps of one class do not touch another."""
        groups = [{"params": self.makers.parameters(), "lr": self.lr}, {"params": [self.masks], "lr": self.mask_lr}]
        return torch.optim.Adam(groups, betas=(0.5, 0.9))

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Try every class's trigger on one batch of root images; losses are summed over the classes."""
        images, labels = batch["image"], batch["label"]
        with torch.no_grad():
            reference = self.net.module.features(images)[torch.randperm(len(images))]
        total, linear, rows, tried = images.new_zeros(()), self.masks.sum() * 0, [], set(self.tried)
        for label, maker in enumerate(self.makers):
            kept, raw = labels != label, self.masks[label].detach().requires_grad_()
            if label not in tried or kept.sum() < 2:  # of one image there is no deviation
                rows.append(self.sums.new_zeros(self.sums.shape[1]))
                linear = linear + cast(Tensor, sum(weight.sum() * 0 for weight in maker.parameters()))
                continue
            loss, found = self.measured(label, images[kept], reference[kept], raw)
            own = [*maker.parameters(), raw]
            gradients = torch.autograd.grad(loss, own)  # the class's graph is gone before the next is made
            pairs = zip([*maker.parameters(), self.masks[label]], gradients, strict=True)
            linear = linear + cast(Tensor, sum((weight * gradient).sum() for weight, gradient in pairs))
            total = total + loss.detach()
            rows.append(torch.stack([*(value.detach().float() for value in found), kept.sum().float()]))
        seen = torch.stack(rows)
        seen[:, :-1] *= seen[:, -1:]
        self.sums += self.trainer.strategy.reduce(seen, reduce_op="sum")
        means = self.sums[:, :-1].sum(0) / self.sums[:, -1].sum()
        if self.trainer.is_last_batch:
            self._end_epoch()
        # one backward pass, as DDP wants it, returns the gradients
        return {"loss": total + (linear - linear.detach()), **dict(zip(Measures._fields, means, strict=True))}

    def _end_epoch(self) -> None:
        """Note the epoch's averages, and keep the best value; the same in every process."""
        tried = self.sums[:, -1] > 0
        means = self.sums[:, :-1] / self.sums[:, -1:].clamp(min=1)
        self.last.copy_(torch.where(tried[:, None], means, self.last))
        if self.counted:
            value = self.value(Measures(*means.unbind(1)))
            self.best.copy_(torch.where(tried, torch.minimum(self.best, value), self.best))
        self.sums.zero_()

    def report(self) -> TargetReport:
        """Flag the classes whose value is below the threshold, the smallest first."""
        values = self.only_judged(self.best)
        order = [int(label) for label in values.argsort() if values[label] < self.threshold]
        return TargetReport(values, -values, tuple(order))

    def trigger(self, target: int) -> Trigger | None:
        """Give the net of a class."""
        return GeneratorTrigger(copy.deepcopy(cast(UNet | SpaceStamp, self.makers[target])))

    def outcome(self) -> Outcome:
        """Export the report, the nets of the flagged classes, or else of the most suspicious one, and their masks."""
        found = super().outcome()
        assert found.tensors is not None
        masks = soft_mask(self.masks.detach())[found.tensors["flagged"].to(self.masks.device)].cpu()
        return dataclasses.replace(found, tensors={**found.tensors, "masks": masks})
