"""Pruning of a suspect's units by scores."""

from __future__ import annotations

from abc import abstractmethod

from torch import Tensor

from lit_backdoor.stages.one_shot import OneShot

__all__ = ["Pruning"]


class Pruning(OneShot):
    """Score the units of a suspect, choose some of them, and cut these.

    A subclass gives the three steps. Where the choice needs a threshold, it may look at the root set only.

    Args:
        suspect: Path of a suspect bundle, or a classifier (a copy of it is pruned).
    """

    def work(self) -> None:
        """Score, choose, cut."""
        self.cut(self.chosen(self.scores()))

    @abstractmethod
    def scores(self) -> Tensor:
        """Score the units."""
        raise NotImplementedError

    @abstractmethod
    def chosen(self, scores: Tensor) -> Tensor:
        """Choose the units to cut; gives their places."""
        raise NotImplementedError

    @abstractmethod
    def cut(self, units: Tensor) -> None:
        """Cut the units off `classifier`."""
        raise NotImplementedError
