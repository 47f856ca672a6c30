"""Which class each round of MARTINI's hardening reconstructs a trigger for."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["Aim", "EasiestFirst", "InTurn", "LabelSpecific", "Mixed", "Schedule"]


@dataclass(frozen=True)
class Aim:
    """What a trigger is to do.

    Attributes:
        target: The class that it leads to.
        source: The class whose images it is for; None for all other classes (a universal trigger).
    """

    target: int
    source: int | None = None

    def rows(self, labels: Tensor) -> Tensor:
        """Say which images the trigger is for, bool ``[B]``."""
        return labels != self.target if self.source is None else labels == self.source


class Schedule(ABC):
    """Chooses the aim of every round; a pure function of its arguments, so that a resumed run goes on exactly."""

    @abstractmethod
    def aim(self, number: int, ease: Tensor, seed: int) -> Aim:
        """Choose an aim.

        Args:
            number: The round, from 0.
            ease: How easily each class was reached so far, in [0, 1], float ``[K]``; 1 for classes not yet tried.
            seed: Seed of the run.
        """


class InTurn(Schedule):
    """Universal triggers, every class once before any comes again, in an order drawn anew each time."""

    def aim(self, number: int, ease: Tensor, seed: int) -> Aim:
        """Choose the next class of this turn."""
        turn, place = divmod(number, len(ease))
        return Aim(int(torch.randperm(len(ease), generator=_generator(seed, turn))[place]))


class EasiestFirst(InTurn):
    """Universal triggers, every class once in turn, then classes drawn in proportion to how easily they are reached."""

    def aim(self, number: int, ease: Tensor, seed: int) -> Aim:
        """Choose the next class of the first turn, then draw one."""
        if number < len(ease):
            return super().aim(number, ease, seed)
        weights = ease.cpu().clamp(min=0.05)  # none is forgotten
        return Aim(int(torch.multinomial(weights, 1, generator=_generator(seed, number))))


class LabelSpecific(Schedule):
    """Triggers from one class to one other; targets in turn, sources drawn."""

    def aim(self, number: int, ease: Tensor, seed: int) -> Aim:
        """Choose a target and a source."""
        target = InTurn().aim(number, ease, seed).target
        step = torch.randint(1, len(ease), (), generator=_generator(seed, number))
        return Aim(target, int(target + step) % len(ease))


class Mixed(Schedule):
    """Universal and label-specific triggers, turn by turn."""

    def aim(self, number: int, ease: Tensor, seed: int) -> Aim:
        """Choose as one of the two schedules does."""
        turn, place = divmod(number, len(ease))
        kind = LabelSpecific() if turn % 2 else InTurn()
        return kind.aim(turn // 2 * len(ease) + place, ease, seed)


def _generator(seed: int, number: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed * 1_000_003 + number)
