"""PGBD under the stamps that it searches: what works at small scale (ours)."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from lit_backdoor.defenses.pgbd.known_target import PGBD
from lit_backdoor.defenses.pgbd.no_target import NTPGBD
from lit_backdoor.defenses.pgbd.sanitization import PrototypeFineTune
from lit_backdoor.errors import settings
from lit_backdoor.functional.prototypes import sanitization_loss
from lit_backdoor.models import Classifier
from lit_backdoor.stages.base import Batch
from lit_backdoor.stages.stamp_search import StampSearch

__all__ = ["StampNTPGBD", "StampPGBD", "stamped_images", "with_stamped"]


class StampPGBD(PGBD):
    """PGBD whose batches come a second time, under the stamp that moves activations most along the vectors.

    Without it clean activations shift away from the vectors, while the trigger still moves along them.

    Args:
        suspect: Path of a suspect bundle, or a classifier (a copy of it is tuned).
        target: As in `PGBD`.
        search: Search of the stamps; default `StampSearch`.
        **options: Further arguments of `PrototypeFineTune`.

    Raises:
        ValueError: As `PGBD`.
    """

    def __init__(
        self,
        suspect: str | Classifier,
        target: int | str | list[int],
        search: StampSearch | None = None,
        **options: Any,
    ) -> None:
        super().__init__(suspect, target, **options)
        self.search = settings("search", search, StampSearch) or StampSearch()

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Compute Eq. 4 on one batch of root images, clean and stamped."""
        return with_stamped(self, super().losses(batch), batch, self.search)


class StampNTPGBD(NTPGBD):
    """NT-PGBD whose batches come a second time, under the stamp that moves activations most along the vectors.

    Args:
        suspect: Path of a suspect bundle, or a classifier (a copy of it is tuned).
        search: Search of the stamps; default `StampSearch`.
        **options: Further arguments of `NTPGBD`.

    Raises:
        ValueError: As `NTPGBD`.
    """

    def __init__(self, suspect: str | Classifier, search: StampSearch | None = None, **options: Any) -> None:
        super().__init__(suspect, **options)
        self.search = settings("search", search, StampSearch) or StampSearch()

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Compute Eq. 4 on one batch of root images, clean and stamped."""
        return with_stamped(self, super().losses(batch), batch, self.search)


def with_stamped(
    stage: PrototypeFineTune, found: dict[str, Tensor], batch: Batch, search: StampSearch
) -> dict[str, Tensor]:
    """Add the loss of the stamped batch to that of the clean one.

    Args:
        stage: Whose terms these are.
        found: Losses of the clean batch, by name.
        batch: Root images.
        search: Settings of the search.
    """
    images, labels = batch["image"], batch["label"]
    own, kept = stage.terms(stamped_images(stage, images, labels, search), labels)
    return {**found, "loss": found["loss"] + search.weight * (own + stage.strength * kept), "stamped": own}


def stamped_images(stage: PrototypeFineTune, images: Tensor, labels: Tensor, search: StampSearch) -> Tensor:
    """Put the stamp on images that moves their activations most along the vectors.

    Args:
        stage: Whose prototypes and vectors these are.
        images: In [0, 1], ``[B, C, H, W]``.
        labels: Their classes, int64 ``[B]``.
        search: Settings of the search.
    """

    def movement(stamped: Tensor) -> Tensor:
        return sanitization_loss(stage.space(stamped)[1], labels, stage.prototypes, stage.vectors)

    return search.stamped(stage.classifier, images, movement)
