"""PGBD with large-model mapping (Sec. 4.2)."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from lit_backdoor.defenses.pgbd.known_target import PGBD
from lit_backdoor.defenses.pgbd.mapping import TeacherMapping
from lit_backdoor.errors import settings
from lit_backdoor.models import Classifier

__all__ = ["MappedPGBD"]


class MappedPGBD(PGBD):
    """PGBD whose vectors pass through the feature space of a large pretrained model.

    Args:
        suspect: Path of a suspect bundle, or a classifier (a copy of it is tuned).
        target: As in `PGBD`.
        mapping: The teacher, and how its space is mapped to the suspect's.
        **options: Further arguments of `PrototypeFineTune`.

    Raises:
        ValueError: If there is no mapping; else as `PGBD`.
    """

    def __init__(
        self, suspect: str | Classifier, target: int | str | list[int], mapping: TeacherMapping, **options: Any
    ) -> None:
        super().__init__(suspect, target, **options)
        found = settings("mapping", mapping, TeacherMapping)
        if found is None:
            raise ValueError("Expected a mapping for MappedPGBD, got none. Without one use PGBD.")
        self.mapping = found
        self._taught: Tensor | None = None

    def make_vectors(self, prototypes: Tensor, current: Tensor) -> Tensor:
        """Let the vectors pass through the teacher's space."""
        vectors = super().make_vectors(prototypes, current)
        if self._taught is None:
            self._taught = self.mapping.teach(self.passes("root"), self.space.shape, self.seed)
        maps = self.mapping.train(self._taught, *self.space.of_root(self), self.seed)
        return maps.through(vectors.view(-1, *self.space.shape)).view_as(vectors)
