"""A stage that trains several nets in turn, each in epochs of its own."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor
from torch.optim import Optimizer

from lit_backdoor.stages.base import Batch, Stage
from lit_backdoor.stages.rules import check_strategy

__all__ = ["Phased", "Span", "make_plan"]


@dataclass(frozen=True)
class Span:
    """A phase's epochs in one round.

    Attributes:
        phase: Its name.
        round: The round, from 0.
        start: Its first epoch.
        epochs: How many.
    """

    phase: str
    round: int
    start: int
    epochs: int

    @property
    def stop(self) -> int:
        """The epoch after the last."""
        return self.start + self.epochs


def make_plan(phases: Iterable[tuple[str, int, int]]) -> tuple[Span, ...]:
    """Lay phases, given as (name, round, epochs), one after the other; those without epochs are left out."""
    plan: list[Span] = []
    for phase, number, epochs in phases:
        if epochs:
            plan.append(Span(phase, number, plan[-1].stop if plan else 0, epochs))
    return tuple(plan)


class Phased(Stage):
    """Manual optimization by phases; which one runs is a function of the epoch only, so a resumed run is exact.

    A batch makes one step of one optimizer. Only what that optimizer trains gets gradients, and its state is reset at
    the start of each phase. The Trainer's ``max_epochs`` is filled in from `plan`. On several devices the nets at rest
    get no gradients: ``--trainer.strategy ddp_find_unused_parameters_true``.

    Raises:
        ValueError: When run, if the Trainer's ``max_epochs`` contradicts the plan, or its strategy is another DDP.
    """

    plan: tuple[Span, ...]

    def __init__(self) -> None:
        super().__init__()
        self.automatic_optimization = False

    # Override in subclasses, next to `build`, `losses` and `result`.

    @abstractmethod
    def optimizers_by_phase(self) -> Mapping[str, Optimizer]:
        """Make the optimizers; phases may share one."""
        raise NotImplementedError

    def begin_phase(self, span: Span) -> None:
        """Prepare a phase, at the start of its first epoch."""

    def set_modes(self, phase: str) -> None:
        """Set the nets' modes, at the start of every epoch."""

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
        """Check the strategy."""
        super().setup(stage)
        if stage == "fit":
            check_strategy(type(self).__name__, self.trainer.strategy)

    def configure_optimizers(self) -> list[Optimizer]:
        """Make the optimizers, and note whose turn each phase is."""
        by_phase = self.optimizers_by_phase()
        optimizers = list(dict.fromkeys(by_phase.values()))
        self._turn = {phase: optimizers.index(optimizer) for phase, optimizer in by_phase.items()}
        self._trained_by = [[p for g in each.param_groups for p in g["params"]] for each in optimizers]
        return optimizers

    def optimizer_of(self, phase: str) -> Any:
        """Give a phase's optimizer."""
        optimizers = self.optimizers()
        return optimizers[self._turn[phase]] if isinstance(optimizers, list) else optimizers

    def begin_epoch(self) -> None:
        """Begin a phase where it is due, and set the modes, which Lightning's train mode undoes."""
        span = self.span
        if self.current_epoch == span.start and not self.mid_epoch:  # else its beginning is in the checkpoint
            self.begin_phase(span)
            self.optimizer_of(span.phase).optimizer.state.clear()
        self._give_gradients_to(self._turn[span.phase])
        self.set_modes(span.phase)

    def _give_gradients_to(self, turn: int | None) -> None:
        """Let only one optimizer's parameters have gradients; None lets all."""
        for number, parameters in enumerate(self._trained_by):
            for parameter in parameters:
                parameter.requires_grad_(turn is None or number == turn)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor | None:
        """Make one step of the phase's optimizer."""
        loss = super().training_step(batch, batch_idx)
        if loss is not None:
            optimizer = self.optimizer_of(self.span.phase)
            optimizer.zero_grad()
            self.manual_backward(loss)
            optimizer.step()
        return loss

    def on_fit_end(self) -> None:
        """Give gradients back to all parameters."""
        self._give_gradients_to(None)
