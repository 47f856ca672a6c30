"""ABS's detection: stimulation of units, and inversion of the stamps that excite the most suspicious ones."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from lit_backdoor.errors import check_share
from lit_backdoor.functional.decoupling import soft_mask
from lit_backdoor.functional.stimulation import candidates, elevations, steering_loss
from lit_backdoor.functional.trigger_inversion import stamp_mask
from lit_backdoor.models import Classifier, Frozen
from lit_backdoor.models.base import evaluating
from lit_backdoor.stages import Batch, TargetDetection, TargetReport
from lit_backdoor.triggers import MaskedPattern, Trigger

__all__ = ["ABS"]

_IMAGES = 32  # that units are stimulated on
_LEVELS = 5


class ABS(TargetDetection):
    """Flag classes to which a stamp leads that excites a single unit (ABS).

    1. Each channel of the features is set to several levels, on a few root images. Those that raise one class far above
       all others, on every image, are candidates.
    2. For each candidate a stamp learns to excite the channel, to leave the others and to stay small.
    3. A class is flagged if such a stamp sends root images of other classes there: its success rate is the REASR.

    A class's statistic is 1 less its best REASR; without a candidate it is infinite. No label takes part in step 2.

    Deviations: units are channels of the layer before the head, not of every layer; only stamps are inverted, not the
    paper's one-layer transformations; the terms of the loss are relative to clean images.

    Args:
        suspect: Path of a suspect bundle, or a classifier; frozen.
        count: Candidates, at least 1. Paper: 10.
        scale: Highest level of stimulation, in multiples of the channel's largest value on root images, > 0.
        area: Share of the image that a stamp may cover, in (0, 1).
        weight: Weight of the change of other channels, >= 0.
        threshold: REASR from which a class is flagged, in (0, 1]. Authors' code: .8.
        lr: Learning rate of Adam, > 0.

    Raises:
        ValueError: If a number is out of range; when run, if images are not of the suspect's size.
    """

    units: Tensor
    labels: Tensor
    success: Tensor

    def __init__(
        self,
        suspect: str | Classifier,
        count: int = 10,
        scale: float = 2.0,
        area: float = 0.06,
        weight: float = 0.3,
        threshold: float = 0.8,
        lr: float = 0.1,
    ) -> None:
        super().__init__(suspect)
        if count < 1:
            raise ValueError(f"Expected count of at least 1, got {count}.")
        for name, value in (("scale", scale), ("lr", lr)):
            if not value > 0:
                raise ValueError(f"Expected {name} > 0, got {value}.")
        if not weight >= 0:
            raise ValueError(f"Expected weight to be 0 or more, got {weight}.")
        self.count, self.scale, self.weight, self.lr = count, scale, weight, lr
        self.area = check_share("area", area)
        self.threshold = check_share("threshold", threshold, closed=True)

    def build(self) -> None:
        """Open the suspect and draw the stamps, which start alike."""
        self.net: Frozen[Classifier] = Frozen(self.open_classifier())
        suspect = self.net.module
        self.refuse_other_size(suspect)
        with evaluating(suspect):
            count = min(self.count, suspect.features(suspect.example()).shape[1])
        size = (suspect.input_size, suspect.input_size)
        mask, pattern = torch.randn(1, *size) - 1, torch.randn(len(suspect.mean), *size) / 2
        self.masks, self.patterns = (nn.Parameter(raw.repeat(count, 1, 1, 1)) for raw in (mask, pattern))
        self.register_buffer("units", torch.zeros(count).long())
        self.register_buffer("labels", torch.zeros(count).long())
        self.register_buffer("success", torch.zeros(count))

    def on_fit_start(self) -> None:
        """Stimulate the units, and choose the candidates."""
        super().on_fit_start()
        suspect = self.net.module
        features = [suspect.features(batch["image"])[batch["valid"]] for batch in self.passes("root", suspect)]
        rows = torch.cat(features).float()
        most = rows.flatten(2).amax((0, 2)) if rows.ndim > 2 else rows.amax(0)
        levels = torch.linspace(0, self.scale, 1 + _LEVELS, device=most.device)[1:, None] * most
        order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(self.seed))[:_IMAGES]
        with torch.no_grad():
            chosen = candidates(elevations(suspect.head, rows[order], levels), len(self.units))
        self.units.copy_(chosen.unit)
        self.labels.copy_(chosen.label)

    def configure_optimizers(self) -> Any:
        """Make Adam for all stamps; its steps of one do not touch another."""
        return torch.optim.Adam([self.masks, self.patterns], lr=self.lr, betas=(0.5, 0.9))

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Try every stamp on one batch of root images; losses are summed over the stamps."""
        suspect, images, mask = self.net.module, batch["image"], soft_mask(self.masks)
        stamped = stamp_mask(images, mask, soft_mask(self.patterns))
        with torch.no_grad():
            clean = suspect.features(images)
        features = suspect.features(stamped.flatten(0, 1))
        features = features.view(*stamped.shape[:2], *features.shape[1:])
        loss = steering_loss(features, clean, self.units, mask, self.area, self.weight)
        return {"loss": loss.sum(), "mask": mask.mean().detach()}

    def on_train_epoch_end(self) -> None:
        """Measure the REASR of every stamp after the last epoch, before its checkpoint."""
        super().on_train_epoch_end()
        if self.current_epoch + 1 >= (self.trainer.max_epochs or 0):
            self._measure()

    def _measure(self) -> None:
        hits, rows = torch.zeros_like(self.success), torch.zeros_like(self.success)
        for batch in self.passes("root", self.net):
            for place, label in enumerate(self.labels.tolist()):
                kept = batch["valid"] & (batch["label"] != label)
                if kept.any():
                    found = self.net(self._stamp(place)(batch["image"][kept])).argmax(1)
                    hits[place] += (found == label).sum()
                    rows[place] += kept.sum()
        self.success.copy_(hits / rows.clamp(min=1))

    def _stamp(self, place: int) -> MaskedPattern:
        return MaskedPattern.holding(soft_mask(self.masks[place]), soft_mask(self.patterns[place]))

    def report(self) -> TargetReport:
        """Flag classes by the REASR of their best stamp."""
        best = torch.full((self.net.module.num_classes,), torch.inf, device=self.success.device)
        best = self.only_judged(best.scatter_reduce(0, self.labels, 1 - self.success, "amin"))
        order = [int(label) for label in best.argsort() if best[label] <= 1 - self.threshold + 1e-6]
        return TargetReport(best, -best, tuple(order), {"reasr": float(self.success.max())})

    def trigger(self, target: int) -> Trigger | None:
        """Give the best stamp of a class; None where it has no candidate."""
        own = self.labels == target
        return self._stamp(int(torch.where(own, self.success, -1.0).argmax())) if own.any() else None
