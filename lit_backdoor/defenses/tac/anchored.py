"""TAC's fine-tune under searched stamps, held to the suspect's answers on mixtures of root images (ours)."""

from __future__ import annotations

from typing import Any

from lit_backdoor.defenses.tac.stamped import TACStampFineTune
from lit_backdoor.errors import check_rate
from lit_backdoor.models import Classifier
from lit_backdoor.stages.anchored import Anchored
from lit_backdoor.stages.stamp_search import StampSearch

__all__ = ["AnchoredTACStampFineTune"]


class AnchoredTACStampFineTune(Anchored, TACStampFineTune):
    """`TACStampFineTune` that is held to the suspect's answers (`Anchored`).

    Args:
        suspect: Path of a suspect bundle, or a classifier (a copy of it is tuned).
        target: As in `TACFineTune`.
        search: Search of the stamps; default `StampSearch`.
        anchor: Weight of the distance from the suspect's answers, >= 0.
        **options: Further arguments of `TACStampFineTune`.

    Raises:
        ValueError: If ``anchor`` is out of range; else as `TACStampFineTune`.
    """

    def __init__(
        self,
        suspect: str | Classifier,
        target: int | str,
        search: StampSearch | None = None,
        anchor: float = 3.0,
        **options: Any,
    ) -> None:
        super().__init__(suspect, target, search, **options)
        self.anchor = check_rate("anchor", anchor)
