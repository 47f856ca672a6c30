"""Inversion of a trigger for every class of a suspect, many classes in one batch."""

from __future__ import annotations

import math
from abc import abstractmethod
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from lit_backdoor.functional.cost_schedule import CostRule, CostState, move_cost, start_cost
from lit_backdoor.functional.trigger_inversion import toward_classes
from lit_backdoor.models import Classifier, Frozen
from lit_backdoor.stages.base import Batch
from lit_backdoor.stages.target_detection import TargetDetection, TargetReport

__all__ = ["TriggerSearch"]


class TriggerSearch(TargetDetection):
    """Find for each class the smallest trigger that sends root images there; a backdoor's class needs a small one.

    Each step stamps the same root images with the triggers of a chunk of classes after another, and minimizes, summed
    over classes,

        cross-entropy toward the class + cost * penalty,

    with a cost per class that follows a `CostRule`. Kept is the smallest trigger that reached the rule's threshold when
    the rule was applied; a class without one has an infinite size. A class is flagged by `mad_index` of its size. The
    classes start at the same random trigger, so that luck does not tell them apart.

    Args:
        suspect: Path of a suspect bundle, or a classifier; frozen.
        cost: How the weight of the penalty moves; default the method's.
        lr: Learning rate of Adam, whose betas are .5 and .9.
        index_threshold: Anomaly index above which a class is flagged.
        own_images: Whether to include a class's own images when inverting its trigger; they are classified as the class
            without any trigger.
        images_at_once: Stamped images that go through the suspect together; bounds the memory.

    Raises:
        ValueError: If ``lr``, ``index_threshold`` or ``images_at_once`` is not positive; when run, if images are not of
            the suspect's size.
    """

    costs: Tensor
    worked: Tensor
    failed: Tensor
    hits: Tensor
    rows: Tensor
    best: Tensor

    def __init__(
        self,
        suspect: str | Classifier,
        cost: CostRule | None = None,
        lr: float = 0.1,
        index_threshold: float = 2.0,
        own_images: bool = False,
        images_at_once: int = 512,
    ) -> None:
        super().__init__(suspect)
        for name, value in (("lr", lr), ("images_at_once", images_at_once), ("index_threshold", index_threshold)):
            if not 0 < value < math.inf:
                raise ValueError(f"Expected {name} > 0, got {value}.")
        self.cost = cost or self.usual_cost
        self.lr = lr
        self.index_threshold = index_threshold
        self.own_images = own_images
        self.images_at_once = images_at_once

    # Override in subclasses. Raw tensors are unbounded, with one row per class.

    usual_cost: ClassVar[CostRule] = CostRule()

    @abstractmethod
    def start(self, channels: int, height: int, width: int) -> tuple[Tensor, ...]:
        """Draw the raw tensors of one trigger, each ``[..., height, width]``."""

    @abstractmethod
    def stamp(self, images: Tensor, *raw: Tensor) -> Tensor:
        """Stamp images ``[B, C, H, W]`` with K triggers; gives ``[K, B, C, H, W]``."""

    @abstractmethod
    def penalty(self, *raw: Tensor) -> Tensor:
        """Give what the cost weighs, ``[K]``."""

    @abstractmethod
    def size(self, *raw: Tensor) -> Tensor:
        """Give the sizes that classes are compared by, ``[K]``."""

    @property
    @abstractmethod
    def due(self) -> bool:
        """Whether the rule is applied after the current batch; it must be after an epoch's last one."""

    # The run.

    def build(self) -> None:
        """Open the suspect and draw the triggers."""
        self.net: Frozen[Classifier] = Frozen(self.open_classifier())
        suspect = self.net.module
        count = suspect.num_classes
        start = self.start(len(suspect.mean), suspect.input_size, suspect.input_size)
        per_class = [raw.expand(count, *raw.shape) for raw in start]
        self.raw = nn.ParameterList(nn.Parameter(raw.clone()) for raw in per_class)
        self.kept = nn.ParameterList(nn.Parameter(raw.clone(), requires_grad=False) for raw in per_class)
        for name, value in zip(("costs", "worked", "failed"), start_cost(count, self.cost), strict=True):
            self.register_buffer(name, value)
        self.register_buffer("hits", torch.zeros(count).long())  # of all processes, since the rule was last applied
        self.register_buffer("rows", torch.zeros(count).long())
        self.register_buffer("best", torch.full((count,), torch.inf))

    def configure_optimizers(self) -> Any:
        """Make Adam for all triggers; its steps of one class do not touch another."""
        return torch.optim.Adam(self.raw, lr=self.lr, betas=(0.5, 0.9))

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Try every class's trigger on one batch of root images; losses are summed over the classes."""
        images, labels = batch["image"], batch["label"]
        own, got = list(self.raw[0].shape[-2:]), list(images.shape[-2:])
        if own != got:
            raise ValueError(f"Expected images of the suspect's size, {own}, got {got}. Set data.stored_size.")
        classes = torch.arange(len(self.best), device=labels.device)
        chunks = torch.split(classes, max(1, self.images_at_once // len(images)))
        tried = (self._try(images, labels, chunk) for chunk in chunks)
        losses, hits, rows, *gradients = (torch.cat(column) for column in zip(*tried, strict=True))
        counts = self.trainer.strategy.reduce(torch.stack((hits, rows)), reduce_op="sum")
        self.hits += counts[0]
        self.rows += counts[1]
        logged = {"asr": (hits / rows).nanmean(), "cost": self.costs.mean()}
        if self.due:
            self._apply_rule()
        # the chunks' graphs are gone, their gradients known: one backward pass, as DDP wants it, returns them
        linear = torch.stack([(raw * found).sum() for raw, found in zip(self.raw, gradients, strict=True)]).sum()
        return {"loss": losses.sum() + (linear - linear.detach()), **logged}

    def _try(self, images: Tensor, labels: Tensor, classes: Tensor) -> tuple[Tensor, ...]:
        """Give losses, hits and rows of a chunk of classes, and the gradients of their raw tensors."""
        raw = [each.detach()[classes].requires_grad_() for each in self.raw]
        stamped = self.stamp(images, *raw)
        logits = self.net(stamped.flatten(0, 1)).unflatten(0, stamped.shape[:2])
        counts = (labels != classes[:, None]) | self.own_images
        found = toward_classes(logits, classes, counts)
        losses = found.loss + self.costs[classes] * self.penalty(*raw)
        return losses.detach(), found.hits, found.rows, *torch.autograd.grad(losses.sum(), raw)

    @torch.no_grad()
    def _apply_rule(self) -> None:
        """Keep the triggers that are better than those before, and move the costs; the same in every process."""
        rate, size = self.hits / self.rows, self.size(*self.raw)
        better = (rate >= self.cost.threshold) & (size < self.best)
        self.best.copy_(torch.where(better, size, self.best))
        for kept, raw in zip(self.kept, self.raw, strict=True):
            kept.copy_(torch.where(better.view(-1, *(1,) * (raw.ndim - 1)), raw, kept))
        state = (self.costs, self.worked, self.failed)
        for buffer, moved in zip(state, move_cost(CostState(*state), rate, self.cost), strict=True):
            buffer.copy_(moved)
        self.hits.zero_()
        self.rows.zero_()

    def on_train_end(self) -> None:
        """Apply the rule to steps that it has not seen, where the run ended inside an epoch."""
        if self.rows.any():
            self._apply_rule()

    def report(self) -> TargetReport:
        """Flag classes by the sizes of their triggers; none where fewer than three classes have one to compare.

        Raises:
            ValueError: If the search has not run yet.
        """
        if not self.ready:
            raise ValueError(f"Expected {type(self).__name__} to have run; call fit before its report is read.")
        sizes = self.only_judged(self.best)
        reached = int(sizes.isfinite().sum())
        if reached < 3:
            top = None if reached == 0 else int(sizes.argmin())
            index = torch.full_like(sizes, -torch.inf)
            return TargetReport(sizes, index, (), {"classes_reached": reached, "top_class": top})
        return TargetReport.by_mad(sizes, self.index_threshold, classes_reached=reached)
