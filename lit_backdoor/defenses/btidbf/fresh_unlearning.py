"""BTI-DBF (U) that inverts anew in every round and unlearns the triggers of all rounds (ours)."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from torch import nn

from lit_backdoor.defenses.btidbf.partial_unlearning import BTIDBFPartialUnlearning

__all__ = ["BTIDBFFreshUnlearning"]


class BTIDBFFreshUnlearning(BTIDBFPartialUnlearning):
    """Start each round's generator anew, and unlearn what the generators of all rounds so far do.

    A generator that is trained on from round to round may stay near the first trigger that it found, which the suspect
    has unlearned by then, while the attacker's still works. A new one looks for what is left. Half of the steps unlearn
    the newest trigger, the others any of those found so far, so that none comes back. The kind of generator that the
    votes choose after the first inversion is kept. Arguments as in `BTIDBFPartialUnlearning`.
    """

    @property
    def rounds(self) -> int:
        """Rounds R1."""
        return self.plan[-1].round + 1

    def make_generators(self) -> Sequence[nn.Module]:
        """Make those to choose from once for each round; all rounds start from the same weights."""
        kinds = list(super().make_generators())
        self.kinds = len(kinds)
        return [*kinds, *(copy.deepcopy(kind) for _ in range(1, self.rounds) for kind in kinds)]

    @property
    def generator(self) -> nn.Module:
        """The current round's, of the kind that was chosen."""
        return self.found(self.span.round)

    def found(self, number: int) -> nn.Module:
        """Give a round's generator of the kind that was chosen."""
        return self.generators[number * self.kinds + self.chosen]

    def trained_in(self, number: int) -> Sequence[nn.Module]:
        """Give the generators that a round trains: in the first one of each kind."""
        return [self.found(number)] if number else list(self.generators)[: self.kinds]

    def unlearned(self) -> nn.Module:
        """Draw the generator whose trigger a step unlearns."""
        newest = self.span.round
        return self.found(newest if torch.rand(()) < 0.5 else int(torch.randint(newest + 1, ())))
