"""PGBD under searched stamps, held to the suspect's answers on mixtures of root images (ours)."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from lit_backdoor.defenses.pgbd.stamped import StampPGBD, with_stamped
from lit_backdoor.errors import check_rate
from lit_backdoor.models import Classifier
from lit_backdoor.stages.anchored import Anchored
from lit_backdoor.stages.base import Batch
from lit_backdoor.stages.stamp_search import StampSearch

__all__ = ["AnchoredStampPGBD"]


class AnchoredStampPGBD(Anchored, StampPGBD):
    """`StampPGBD` that is held to the suspect's answers (`Anchored`) and penalizes stamped images only.

    The penalty on clean images asks for what the anchor forbids: it moves their activations away from the target.

    Args:
        suspect: Path of a suspect bundle, or a classifier (a copy of it is tuned).
        target: As in `PGBD`.
        search: Search of the stamps; default `StampSearch`.
        anchor: Weight of the distance from the suspect's answers, >= 0.
        **options: Further arguments of `PrototypeFineTune`.

    Raises:
        ValueError: If ``anchor`` is out of range; else as `PGBD`.
    """

    def __init__(
        self,
        suspect: str | Classifier,
        target: int | str | list[int],
        search: StampSearch | None = None,
        anchor: float = 1.0,
        **options: Any,
    ) -> None:
        super().__init__(suspect, target, search, **options)
        self.anchor = check_rate("anchor", anchor)

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Compute the loss on one batch of root images: clean, stamped and mixed."""
        own, _ = self.terms(batch["image"], batch["label"])
        found = with_stamped(self, {"loss": own, "classification": own}, batch, self.search)
        return self.anchored(found, batch)
