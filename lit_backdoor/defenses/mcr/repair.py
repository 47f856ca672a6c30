"""MCR's training of a curve through weight space, and the choice of a point on it."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import torch
from lightning.pytorch.cli import OptimizerCallable
from torch import Tensor
from torch.func import functional_call
from torch.nn import functional as F
from torch.optim.swa_utils import update_bn

from lit_backdoor.errors import check_share
from lit_backdoor.functional.curves import quadratic_bezier
from lit_backdoor.models import Classifier, Frozen
from lit_backdoor.stages.base import Batch
from lit_backdoor.stages.held_out import is_held_out
from lit_backdoor.stages.inputs import Takes
from lit_backdoor.stages.optim import Schedule, scheduled, sgd
from lit_backdoor.stages.repair import FineTune

__all__ = ["ModeConnectivityRepair"]

PLACES = tuple(step / 10 for step in range(1, 10))  # .1 to .9


class ModeConnectivityRepair(FineTune):
    r"""Train the bend of a curve from the suspect to a fine-tuned copy, and give a net on the curve (MCR).

    .. math:: \min_\theta \mathbb E_{t \sim U(0, 1)} \mathrm{CE}\bigl(f_{\phi_\theta(t)}(x),\ y\bigr)

    with `quadratic_bezier` as the curve; the bend starts halfway between the two nets. Statistics of batch norms are
    measured anew on the root set at the point that is given. Of the points .1, .2, … .9 it is the one with the highest
    accuracy on root images that no step saw; ties go to the middle of the curve, far from both nets.

    Args:
        suspect: Path of a suspect bundle, or a classifier: where the curve starts.
        tuned: Path of the bundle of the fine-tuned suspect, or a classifier of the same architecture: where it ends.
        place: The point, in (0, 1); None chooses it. BackdoorBench: .1.
        optimizer: Makes the optimizer of the bend; default SGD .01, momentum .9, weight decay 5e-4.
        schedule: What the learning rate does over the run.
        held_out: Share of the root set that is held out, in (0, 1).

    Raises:
        ValueError: If a number is out of range; when run, if the two nets are of different architectures.
    """

    takes: ClassVar[Takes] = {**FineTune.takes, "tuned": ("suspect",)}
    selection: ClassVar[Literal["none", "root", "oracle"]] = "root"

    def __init__(
        self,
        suspect: str | Classifier,
        tuned: str | Classifier,
        place: float | None = None,
        optimizer: OptimizerCallable = sgd,
        schedule: Schedule = "cosine",
        held_out: float = 0.2,
    ) -> None:
        super().__init__(suspect, optimizer, schedule)
        self.given(tuned=tuned)
        self.places = PLACES if place is None else (check_share("the place on the curve", place),)
        self.held_out = check_share("the share of held-out root images", held_out)
        self.place = 0.0
        self._stale = True  # whether the bend moved since the point was chosen

    def build(self) -> None:
        """Open both nets, and start the bend halfway."""
        super().build()
        self.classifier.requires_grad_(False)
        self.start: Frozen[Classifier] = Frozen(self.open_classifier())
        self.end: Frozen[Classifier] = Frozen(self.open_classifier("tuned"))
        start, end = (dict(net.module.named_parameters()) for net in (self.start, self.end))
        if {name: each.shape for name, each in start.items()} != {name: each.shape for name, each in end.items()}:
            raise ValueError(
                f"Expected tuned to be a net like the suspect, {type(self.start.module.net).__name__}, got weights of "
                f"other names or shapes in {type(self.end.module.net).__name__}. Give the suspect after fine-tuning."
            )
        self.bend = self.open_classifier().requires_grad_(True).train()
        with torch.no_grad():
            for name, bend in self.bend.named_parameters():
                bend.copy_((start[name] + end[name]) / 2)

    def configure_optimizers(self) -> Any:
        """Make the optimizer of the bend and its schedule."""
        return scheduled(self, self.optimizer(self.bend.parameters()), self.schedule)

    def weights_at(self, place: float) -> dict[str, Tensor]:
        """Give the weights at a point of the curve, by name."""
        start, end = (dict(net.module.named_parameters()) for net in (self.start, self.end))
        return {
            name: quadratic_bezier(start[name], bend, end[name], place) for name, bend in self.bend.named_parameters()
        }

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Compute the cross-entropy at a point drawn for the batch, of the rows that are not held out."""
        kept = ~is_held_out(self, batch, self.held_out)
        if not kept.any():
            return {}
        logits = functional_call(self.bend, self.weights_at(float(torch.rand(()))), (batch["image"][kept],))
        return {"loss": F.cross_entropy(logits.float(), batch["label"][kept])}

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> int | None:
        """Note that the bend moves."""
        self._stale = True
        return super().on_train_batch_start(batch, batch_idx)

    def on_train_end(self) -> None:
        """Choose the point."""
        self.result()

    def result(self) -> Classifier:
        """Give the net at the chosen point; it is chosen anew if the bend moved."""
        if self._stale:
            self.place = max(self.places, key=lambda place: (self.accuracy_at(place), -abs(place - 0.5)))
            self.move_to(self.place)
            self._stale = False
        return self.classifier

    def accuracy_at(self, place: float) -> float:
        """Measure the accuracy on held-out root images at a point; a single point needs no measuring."""
        if len(self.places) == 1:
            return 1.0
        self.move_to(place)
        return self.root_accuracy(self.classifier, lambda batch: is_held_out(self, batch, self.held_out))

    @torch.no_grad()
    def move_to(self, place: float) -> None:
        """Give the result the weights of a point, and the statistics that they have on the root set."""
        weights = self.weights_at(place)
        for name, weight in self.classifier.named_parameters():
            weight.copy_(weights[name])
        update_bn((batch["image"] for batch in self.passes("root")), self.classifier)

    def numbers(self) -> dict[str, Any]:
        """Give the point."""
        return {"place": self.place}
