"""Semantic triggers: something that real pictures show, such as sunglasses. They name rows and change no pixel."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from lit_backdoor.errors import unknown
from lit_backdoor.triggers.base import Trigger

__all__ = ["SemanticTrigger"]


class SemanticTrigger(Trigger):
    """Pictures carry the trigger already; a column of the source says which.

    The poisoned rows are real pictures that carry it, relabeled (PGBD's occlusion attacks). ASR and RA are counted on
    the test pictures that carry it, ACC on those that do not. Carriers that are not poisoned, such as the target
    class's own under a policy that leaves them out, stay in the questioned set as clean rows under their true labels.
    There is no picture with and without it, so what compares the two (DoF, FD, TAC fidelity) does not exist.

    Args:
        column: Name of the column, as the source's `Rows.columns` has it.
        value: The column's value in rows that carry the trigger.
    """

    stamps = False

    def __init__(self, column: str, value: int = 1) -> None:
        super().__init__()
        self.column, self.value = column, int(value)

    def carriers(self, columns: Mapping[str, Tensor]) -> Tensor:
        """Say which rows carry the trigger, bool ``[N]``.

        Raises:
            ValueError: If there is no such column; names those that there are.
        """
        if self.column not in columns:
            raise unknown("column for the attack's trigger", self.column, columns)
        return columns[self.column].cpu().to(torch.int64) == self.value

    def forward(self, images: Tensor, index: Tensor) -> Tensor:
        """Refuse.

        Raises:
            ValueError: Always.
        """
        raise ValueError(
            f"Expected a trigger that can be stamped on images, got pictures that carry it ({self.column} = "
            f"{self.value}). Take a pixel trigger here, such as PaintedMask."
        )
