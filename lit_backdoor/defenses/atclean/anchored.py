"""ATClean's fine-tune, held to the suspect's answers on mixtures of root images (ours)."""

from __future__ import annotations

from typing import Any

from lit_backdoor.errors import check_rate
from lit_backdoor.models import Classifier, UNet
from lit_backdoor.stages.anchored import Anchored
from lit_backdoor.stages.unlearning import UnlearningFineTune
from lit_backdoor.triggers import Trigger

__all__ = ["AnchoredUnlearningFineTune"]


class AnchoredUnlearningFineTune(Anchored, UnlearningFineTune):
    """Fine-tune on clean and generated images, held to the suspect's answers (`Anchored`).

    Where there is no backdoor to select, the generator leads images to clean features of a class, and unlearning these
    costs accuracy; the anchor limits that.

    Args:
        suspect: Path of a suspect bundle, or a classifier (a copy of it is tuned).
        generator: As in `Unlearning`.
        anchor: Weight of the distance from the suspect's answers, >= 0.
        **options: Further arguments of `Unlearning`.

    Raises:
        ValueError: If ``anchor`` is out of range; else as `Unlearning`.
    """

    def __init__(
        self, suspect: str | Classifier, generator: str | UNet | Trigger, anchor: float = 1.0, **options: Any
    ) -> None:
        super().__init__(suspect, generator, **options)
        self.anchor = check_rate("anchor", anchor)
