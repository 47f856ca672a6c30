"""Triggers that are made before a victim is trained on them: by training a net, or by an optimization."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from operator import itemgetter
from typing import Any, ClassVar, Literal, get_args

import torch
from lightning.pytorch.cli import OptimizerCallable
from torch import Tensor, nn

from lit_backdoor.errors import one_of
from lit_backdoor.models import Classifier, Frozen
from lit_backdoor.stages.base import Batch, Stage
from lit_backdoor.stages.evaluation import Evaluator, StampEvaluator
from lit_backdoor.stages.inputs import Takes
from lit_backdoor.stages.optim import Schedule, adam_for_generators, scheduled
from lit_backdoor.stages.own_attack import OwnAttack
from lit_backdoor.triggers import Trigger

__all__ = ["TriggerCrafting", "TriggerTraining"]


class TriggerTraining(OwnAttack, Stage):
    """Train the trigger of the data's attack; the bundle carries that attack, which a victim's data take from it.

    A subclass gives `losses` and, if only a part of the trigger is trained or a net of another kind with it, `nets`.

    Args:
        optimizer: Makes the optimizer; default Adam 1e-3.
        schedule: What the learning rate does over the run.

    Raises:
        ValueError: If the schedule is unknown; when run, if the data have no attack or its trigger is of another kind.
    """

    views: ClassVar[tuple[str, ...]] = ("attacker",)
    kind: ClassVar[str | None] = "attack"
    takes: ClassVar[Takes] = {}

    def __init__(self, optimizer: OptimizerCallable = adam_for_generators, schedule: Schedule = "constant") -> None:
        super().__init__()
        self.optimizer = optimizer
        self.schedule = one_of("schedule", schedule, get_args(Schedule))

    def build(self) -> None:
        """Take the trigger; what is not trained needs no gradients."""
        self.take_trigger()
        self.trigger.requires_grad_(False)
        self.nets().requires_grad_(True)

    def nets(self) -> nn.Module:
        """Give what is trained."""
        return self.trigger

    def configure_optimizers(self) -> Any:
        """Make the optimizer and its schedule."""
        return scheduled(self, self.optimizer(self.nets().parameters()), self.schedule)

    @abstractmethod
    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Give ``loss`` on one batch of untouched rows, and the parts of it to be logged."""
        raise NotImplementedError

    def result(self) -> Trigger:
        """Give the trigger."""
        return self.trigger

    def evaluator(self) -> Evaluator:
        """Measure how much the trigger changes images."""
        return StampEvaluator(self.attached_data)


class TriggerCrafting(OwnAttack, Stage):
    """Find the trigger of the data's attack by an optimization on a surrogate; run by ``predict``.

    The bundle carries the attack, which a victim's data take from it. A subclass finds the trigger in `craft`.

    Args:
        surrogate: Path of a bundle with a classifier, or a classifier: what the attacker has instead of the victim.

    Raises:
        ValueError: When run, if the data have no attack or its trigger is of another kind.
    """

    views: ClassVar[tuple[str, ...]] = ("attacker",)
    verb: ClassVar[Literal["fit", "predict"]] = "predict"
    kind: ClassVar[str | None] = "attack"
    takes: ClassVar[Takes] = {"surrogate": ("suspect",)}

    def __init__(self, surrogate: str | Classifier) -> None:
        super().__init__()
        self.given(surrogate=surrogate)
        self._crafted = False

    def build(self) -> None:
        """Take the trigger and open the surrogate."""
        self.take_trigger()
        self.net: Frozen[Classifier] = Frozen(self.open_classifier("surrogate"))

    @abstractmethod
    def craft(self) -> None:
        """Find the trigger; gradients are off, unless ``torch.enable_grad`` switches them on."""
        raise NotImplementedError

    def predict_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
        """Find the trigger, once."""
        if not self._crafted:
            with torch.inference_mode(False), torch.no_grad(), torch.random.fork_rng(devices=[]):
                torch.manual_seed(self.seed)
                self.craft()
        self._crafted = True

    def rows(self, counted: Callable[[Batch], Tensor] = itemgetter("valid")) -> tuple[Tensor, Tensor, Tensor]:
        """Give images ``[N, C, H, W]``, labels and indices of those questioned rows that count, untouched."""
        found = []
        for batch in self.passes("attacker"):
            kept = batch["valid"] & counted(batch)
            found.append((batch["image"][kept], batch["label"][kept], batch["index"][kept]))
        images, labels, index = (torch.cat(column) for column in zip(*found, strict=True))
        return images, labels, index

    def result(self) -> Trigger:
        """Give the trigger."""
        return self.trigger

    def evaluator(self) -> Evaluator:
        """Measure how much the trigger changes images."""
        return StampEvaluator(self.attached_data)
