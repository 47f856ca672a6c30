"""A stage that trains several nets in turn, each in its own epochs."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any

from lightning.pytorch.strategies import DDPStrategy
from torch import Tensor
from torch.optim import Optimizer

from lit_backdoor.defenses.btidbf.settings import Span
from lit_backdoor.stages.base import Batch, Stage

__all__ = ["Alternating"]


class Alternating(Stage):
    """Manual optimization by phases; which one runs is a function of the epoch alone, so a resumed run is exact.

    A batch makes one step of one optimizer. An optimizer's moments are dropped where a phase begins. On several
    devices the nets at rest get no gradients: ``--trainer.strategy ddp_find_unused_parameters_true``.

    Raises:
        ValueError: When run, if the Trainer's ``max_epochs`` is not the plan's, or its strategy is another DDP.
    """

    plan: tuple[Span, ...]

    def __init__(self) -> None:
        super().__init__()
        self.automatic_optimization = False
        self._begun = -1  # the last epoch that began in this process

    # What a subclass says.

    @abstractmethod
    def optimizers_by_phase(self) -> Mapping[str, Optimizer]:
        """Make the optimizers; phases may share one."""

    @abstractmethod
    def begin(self, span: Span) -> None:
        """Prepare a phase, at the start of its first epoch."""

    @abstractmethod
    def set_modes(self, phase: str) -> None:
        """Set the nets' modes, at the start of every epoch."""

    @abstractmethod
    def step(self, span: Span, batch: Batch) -> Tensor | None:
        """Give the loss of a batch; None where nothing is to be trained."""

    # The run.

    @property
    def planned_epochs(self) -> int:
        """Epochs of the whole plan."""
        return self.plan[-1].stop

    @property
    def span(self) -> Span:
        """The phase of the current epoch; past the end the last one."""
        return next((span for span in self.plan if self.current_epoch < span.stop), self.plan[-1])

    def setup(self, stage: str) -> None:
        """Check the Trainer against the plan."""
        if stage != "fit" or getattr(self.trainer, "fast_dev_run", False):
            return
        if self.trainer.max_epochs != self.planned_epochs:
            parts = ", ".join(f"{span.phase} {span.epochs}" for span in self.plan)
            raise ValueError(
                f"Expected max_epochs={self.planned_epochs} for the rounds of {type(self).__name__} ({parts}), got "
                f"{self.trainer.max_epochs}. Set the Trainer's max_epochs to {self.planned_epochs}, or change rounds "
                "and epochs."
            )
        if self.trainer.max_steps not in (-1, None):
            raise ValueError(
                f"Expected no max_steps for {type(self).__name__}, whose phases are epochs, got "
                f"{self.trainer.max_steps}."
            )
        strategy = self.trainer.strategy
        if isinstance(strategy, DDPStrategy) and not strategy._ddp_kwargs.get("find_unused_parameters"):
            raise ValueError(
                f"{type(self).__name__} trains its nets in turn, so plain DDP would wait for gradients that do not "
                "come. Expected --trainer.strategy ddp_find_unused_parameters_true."
            )

    def configure_optimizers(self) -> list[Optimizer]:
        """Make the optimizers, and note whose turn each phase is."""
        by_phase = self.optimizers_by_phase()
        optimizers = list(dict.fromkeys(by_phase.values()))
        self._turn = {phase: optimizers.index(optimizer) for phase, optimizer in by_phase.items()}
        return optimizers

    def on_train_epoch_start(self) -> None:
        """Begin a phase where it is due, and set the modes, which Lightning's train mode undoes."""
        self._begun = self.current_epoch
        span = self.span
        if self.current_epoch == span.start:
            self.begin(span)
            self._optimizer(span.phase).optimizer.state.clear()
        self.set_modes(span.phase)

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> int | None:
        """Begin the epoch where Lightning did not: in a run that resumes after an epoch's last step, or amid one."""
        if self._begun != self.current_epoch and batch_idx == 0:
            self.on_train_epoch_start()
        elif self._begun != self.current_epoch:  # amid an epoch; what its phase began with is in the checkpoint
            self._begun = self.current_epoch
            self.set_modes(self.span.phase)
        return super().on_train_batch_start(batch, batch_idx)

    def training_step(self, batch: Batch, batch_idx: int) -> None:
        """Make one step of the phase's optimizer."""
        span = self.span
        optimizer = self._optimizer(span.phase)
        with self.toggled_optimizer(optimizer):
            loss = self.step(span, batch)
            if loss is None:
                return
            optimizer.zero_grad()
            self.manual_backward(loss)
            optimizer.step()
        self.log_train(len(batch["image"]), loss=loss.detach())

    def _optimizer(self, phase: str) -> Any:
        optimizers = self.optimizers()
        return optimizers[self._turn[phase]] if isinstance(optimizers, list) else optimizers
