"""PDB's training with stamped root images among the questioned rows."""

from __future__ import annotations

import math
from typing import Any, ClassVar, cast

import torch
from lightning.pytorch.cli import OptimizerCallable
from torch import Tensor
from torch.nn import functional as F

from lit_backdoor.models import Classifier, Purified
from lit_backdoor.models.corner_stamp import CornerStamp
from lit_backdoor.models.permuted import Permuted
from lit_backdoor.stages.base import Batch
from lit_backdoor.stages.from_scratch import FromScratch
from lit_backdoor.stages.optim import Schedule, sgd_from_scratch

__all__ = ["ProactiveTraining"]


class ProactiveTraining(FromScratch):
    r"""Train anew on the questioned set and on stamped root images under shifted labels (PDB).

    .. math:: \mathrm{CE}(f(x), y) \text{ on questioned rows}, \qquad
        \mathrm{CE}\bigl(f(s(x)), (y + 1) \bmod C\bigr) \text{ on root rows}

    The stamp s is a square, by default of a value that no image has. The result stamps every image and takes the shift
    back, so that a triggered image, stamped, goes where the stamp sends it.

    Args:
        suspect: Path of a suspect bundle, or a classifier; only its architecture is used.
        size: Side in pixels of the stamp in the top left corner. Release: 7.
        value: Value of its pixels, in units in which white is 1. Release: 2.
        repeats: How often an epoch over the questioned set sees each root row, > 0. Release: 5.
        optimizer: Makes the optimizer; default SGD, Nesterov .9, learning rate .1, weight decay 5e-4.
        schedule: What the learning rate does over the run.

    Raises:
        ValueError: If ``size`` or ``repeats`` is not positive, or ``value`` not finite.
    """

    views: ClassVar[tuple[str, ...]] = ("train", "root")

    def __init__(
        self,
        suspect: str | Classifier,
        size: int = 7,
        value: float = 2.0,
        repeats: float = 5.0,
        optimizer: OptimizerCallable = sgd_from_scratch,
        schedule: Schedule = "one_cycle",
    ) -> None:
        super().__init__(suspect, optimizer, schedule)
        if size < 1 or not repeats > 0 or not math.isfinite(value):
            raise ValueError(
                f"Expected size of at least 1, repeats above 0 and a finite value, got {size}, {repeats} and {value}."
            )
        self.size, self.value, self.repeats = size, value, repeats

    def build(self) -> None:
        """Make a new net behind the stamp, its classes shifted back."""
        super().build()
        net: Classifier = self.classifier
        stamped = Purified(CornerStamp(self.size, [self.value] * len(net.mean)), net)
        self.classifier: Permuted = Permuted(stamped, [*range(1, net.num_classes), 0])

    @property
    def stamped(self) -> Purified:
        """The net behind the stamp, its classes shifted."""
        return cast(Purified, self.classifier.classifier)

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> int | None:
        """Seed the step."""
        return super().on_train_batch_start(batch["train"], batch_idx)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor | None:
        """Make a step on questioned rows, with root rows beside them."""
        return super().training_step({**batch["train"], "root": batch["root"]}, batch_idx)

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Compute the cross-entropy of questioned rows and of stamped root rows under shifted labels."""
        images, labels, root = batch["image"], batch["label"], batch["root"]
        views = (self.data.get_view(name) for name in ("root", "questioned"))
        part, whole = (len(view) for view in views)
        count = max(1, round(self.repeats * len(images) * part / whole))
        stamped = self.stamped.purifier(root["image"][:count])
        shifted = (root["label"][:count] + 1) % self.classifier.num_classes
        logits = self.stamped.classifier(torch.cat((images, stamped))).float()
        return {"loss": F.cross_entropy(logits, torch.cat((labels, shifted)))}
