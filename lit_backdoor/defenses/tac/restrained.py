"""TAC's fine-tune under searched stamps for few root images: its penalty gives way where it costs a class (ours)."""

from __future__ import annotations

from typing import Any

from lit_backdoor.defenses.tac.stamped import TACStampFineTune
from lit_backdoor.errors import check_share
from lit_backdoor.models import Classifier
from lit_backdoor.stages.restrained import Restrained
from lit_backdoor.stages.stamp_search import StampSearch

__all__ = ["RestrainedTACStampFineTune"]


class RestrainedTACStampFineTune(Restrained, TACStampFineTune):
    """`TACStampFineTune` that eases what concerns s while it costs a class (`Restrained`); stamps keep their weight.

    Args:
        suspect: Path of a suspect bundle, or a classifier (a copy of it is tuned).
        target: As in `TACFineTune`.
        search: Search of the stamps; default `StampSearch`.
        tolerance: Loss of a class's mean probability on held-out root images that is tolerated, in (0, 1).
        **options: Further arguments of `TACStampFineTune`.

    Raises:
        ValueError: If ``tolerance`` is out of range; else as `TACStampFineTune`.
    """

    def __init__(
        self,
        suspect: str | Classifier,
        target: int | str,
        search: StampSearch | None = None,
        tolerance: float = 0.1,
        **options: Any,
    ) -> None:
        super().__init__(suspect, target, search, **options)
        self.tolerance = check_share("tolerance", tolerance)
