"""Training of a suspect and of its trigger by an attacker who controls training."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable
from typing import Any, ClassVar, cast

from lightning.pytorch.cli import OptimizerCallable
from torch import Tensor, nn
from torch.nn import functional as F

from lit_backdoor.models import Classifier
from lit_backdoor.stages.base import Batch
from lit_backdoor.stages.optim import Schedule, adam, adam_for_generators, scheduled, sgd_from_scratch
from lit_backdoor.stages.own_attack import OwnAttack, Planted, check_shares
from lit_backdoor.stages.poisoned_training import PoisonedTraining
from lit_backdoor.stages.rules import check_strategy

__all__ = ["AttackTraining", "JointTraining"]


class AttackTraining(OwnAttack, PoisonedTraining):
    """Train a classifier and the trigger of the data's attack in turn, a step of each per batch.

    The trigger is part of this stage's checkpoints. Batches are the questioned rows untouched, with their roles. A
    subclass gives `trigger_losses` and `losses`. On several devices each net rests while the other is trained:
    ``--trainer.strategy ddp_find_unused_parameters_true``.

    Args:
        classifier: The net to train.
        optimizer: Makes the classifier's optimizer; default SGD, Nesterov .9, learning rate .1, weight decay 5e-4.
        trigger_optimizer: Makes the trigger's; default Adam 1e-4.
        schedule: What the classifier's learning rate does over the run.

    Raises:
        ValueError: When run, if the data has no attack, its trigger has no weights or cannot be written into a bundle,
            or the strategy is another DDP.
    """

    views: ClassVar[tuple[str, ...]] = ("attacker",)

    def __init__(
        self,
        classifier: Classifier,
        optimizer: OptimizerCallable = sgd_from_scratch,
        trigger_optimizer: OptimizerCallable = adam,
        schedule: Schedule = "one_cycle",
    ) -> None:
        super().__init__(classifier, optimizer, schedule)
        self.trigger_optimizer = trigger_optimizer
        self.automatic_optimization = False

    # Override in subclasses.

    @abstractmethod
    def trigger_losses(self, batch: Batch) -> dict[str, Tensor]:
        """Give ``trigger_loss``, which the trigger minimizes, and what is logged with it; nothing if it rests."""
        raise NotImplementedError

    def trigger_weights(self) -> Iterable[nn.Parameter]:
        """Give the weights of the trigger that are trained; by default all."""
        return self.trigger.parameters()

    # The run.

    def setup(self, stage: str) -> None:
        """Check the strategy."""
        super().setup(stage)
        if stage == "fit":
            check_strategy(type(self).__name__, self.trainer.strategy)

    def build(self) -> None:
        """Take the trigger."""
        self.take_trigger()
        if not any(True for _ in self.trigger.parameters()):
            raise ValueError(
                f"Expected a trigger with weights for {type(self).__name__}, got {type(self.trigger).__name__}, which "
                "has nothing to train. Train on it as it is: lit_backdoor.stages.PoisonedTraining."
            )

    def configure_optimizers(self) -> Any:
        """Make both optimizers; only the classifier's has a schedule."""
        of_classifier = scheduled(self, self.optimizer(self.classifier.parameters()), self.schedule)
        of_trigger = {"optimizer": self.trigger_optimizer(self.trigger_weights())}
        return (of_classifier if isinstance(of_classifier, dict) else {"optimizer": of_classifier}), of_trigger

    def training_step(self, batch: Batch, batch_idx: int) -> None:
        """Make a step of the trigger, then one of the classifier."""
        of_classifier, of_trigger = cast(list[Any], self.optimizers())
        with self.toggled_optimizer(of_trigger):
            found = self.trigger_losses(batch)
            if found:
                self._step(of_trigger, found["trigger_loss"])
        with self.toggled_optimizer(of_classifier):
            found |= self.losses(batch)
            self._step(of_classifier, found["loss"])
        self._step_schedule()
        self.note(batch, found)

    def _step(self, optimizer: Any, loss: Tensor) -> None:
        optimizer.zero_grad()
        self.manual_backward(loss)
        optimizer.step()

    def _step_schedule(self) -> None:
        if (schedule := self.lr_schedulers()) is not None:
            cast(Any, schedule).step()


class JointTraining(AttackTraining):
    """Train classifier and trigger by one loss and in one step, on batches whose rows are poisoned anew.

    Both minimize the cross-entropy of the batch's poisoned rows, covers and clean rows, whatever roles the plan has for
    them; a subclass adds to it what concerns the trigger.

    Args:
        classifier: The net to train.
        poison: Share of each batch that is poisoned, in (0, 1).
        cover: Share of each batch that are covers, in [0, 1).
        optimizer: Makes the classifier's optimizer; default SGD, Nesterov .9, learning rate .1, weight decay 5e-4.
        trigger_optimizer: Makes the trigger's; default Adam 1e-3.
        schedule: What the classifier's learning rate does over the run.

    Raises:
        ValueError: If a share is out of range; when run, as in `AttackTraining`.
    """

    def __init__(
        self,
        classifier: Classifier,
        poison: float = 0.1,
        cover: float = 0.0,
        optimizer: OptimizerCallable = sgd_from_scratch,
        trigger_optimizer: OptimizerCallable = adam_for_generators,
        schedule: Schedule = "one_cycle",
    ) -> None:
        super().__init__(classifier, optimizer, trigger_optimizer, schedule)
        self.poison, self.cover = check_shares(poison, cover)

    def trigger_losses(self, batch: Batch) -> dict[str, Tensor]:
        """Give none: the trigger has no loss of its own."""
        return {}

    def added(self, batch: Batch, planted: Planted) -> dict[str, Tensor]:
        """Give losses, by name, that are added to the cross-entropy."""
        return {}

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Compute the loss of both nets."""
        planted = self.planted(batch, self.poison, self.cover)
        logits, added = self.classifier(planted.images).float(), self.added(batch, planted)
        classification = F.cross_entropy(logits, planted.labels)
        right = (logits.argmax(1) == planted.labels).float().mean()
        return {"loss": classification + sum(added.values()), "classification": classification, **added, "acc": right}

    def training_step(self, batch: Batch, batch_idx: int) -> None:
        """Make one step of both nets."""
        optimizers, found = cast(list[Any], self.optimizers()), self.losses(batch)
        for optimizer in optimizers:
            optimizer.zero_grad()
        self.manual_backward(found["loss"])
        for optimizer in optimizers:
            optimizer.step()
        self._step_schedule()
        self.note(batch, found)
