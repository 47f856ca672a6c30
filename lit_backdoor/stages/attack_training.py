"""Training of a suspect and of its trigger by an attacker who controls training."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, ClassVar, cast

from lightning.pytorch.cli import OptimizerCallable
from torch import Tensor

from lit_backdoor.models import Classifier
from lit_backdoor.recipe import recipe
from lit_backdoor.stages.base import Batch
from lit_backdoor.stages.optim import Schedule, adam, scheduled, sgd_from_scratch
from lit_backdoor.stages.poisoned_training import PoisonedTraining
from lit_backdoor.stages.rules import check_strategy
from lit_backdoor.triggers import Attack, Trigger

__all__ = ["AttackTraining"]


class AttackTraining(PoisonedTraining):
    """Train a classifier and the trigger of the data's attack in turn, a step of each per batch.

    The trigger is the attack's own object, part of this stage's checkpoints: validation, test and the exported bundle
    all have it as it was trained. Batches are the questioned rows untouched, with their roles. A subclass gives
    `trigger_losses` and `losses`. On several devices each net rests while the other is trained:
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

    # The run.

    @property
    def attack(self) -> Attack:
        """The attack of the data.

        Raises:
            ValueError: If there is none.
        """
        if (attack := self.data.attack) is None:
            raise ValueError(f"Expected data.attack to be set for {type(self).__name__}: it gives trigger and labels.")
        return attack  # type: ignore[no-any-return]

    def setup(self, stage: str) -> None:
        """Check the strategy."""
        super().setup(stage)
        if stage == "fit":
            check_strategy(type(self).__name__, self.trainer.strategy)

    def build(self) -> None:
        """Take the trigger."""
        recipe(self.attack)  # what cannot be written into the bundle is refused before it is trained
        self.trigger: Trigger = self.attack.trigger
        if not any(True for _ in self.trigger.parameters()):
            raise ValueError(
                f"Expected a trigger with weights for {type(self).__name__}, got {type(self.trigger).__name__}, which "
                "has nothing to train. Train on it as it is: lit_backdoor.stages.PoisonedTraining."
            )

    def configure_optimizers(self) -> Any:
        """Make both optimizers; only the classifier's has a schedule."""
        of_classifier = scheduled(self, self.optimizer(self.classifier.parameters()), self.schedule)
        of_trigger = {"optimizer": self.trigger_optimizer(self.trigger.parameters())}
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
        if (schedule := self.lr_schedulers()) is not None:
            cast(Any, schedule).step()
        self.note(batch, found)

    def _step(self, optimizer: Any, loss: Tensor) -> None:
        optimizer.zero_grad()
        self.manual_backward(loss)
        optimizer.step()

    def wanted(self, labels: Tensor) -> Tensor:
        """Give the attack's labels for true labels, int64 ``[B]``."""
        return self.attack.relabel(labels, self.classifier.num_classes)
