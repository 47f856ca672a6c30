"""Settings of PGBD: where activations are taken, and how prototypes are kept up to date."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from lit_backdoor.errors import check_share, one_of

__all__ = ["Geometry"]


@dataclass(frozen=True)
class Geometry:
    """Where prototypes are taken, and when they are taken anew.

    Attributes:
        layer: Layer of the net whose output is the activation, as `Classifier.layer_names` has it; None for the last
            convolution, before its shortcut is added (paper: the last one of ``layer4``), or the classifier's split
            where the net has none, such as a ViT.
        pooled: Whether maps are averaged over their positions (ours): a patch moves the activations at a few of them,
            where a prototype's vector is small. The paper takes whole maps.
        centroids: Centroids of K-means per class. Paper: 3.
        update: Epochs between rebuildings; 0 for never after the first. Release: off, else 5.
        alpha: Weight of the new values when they are rebuilt, in (0, 1]; several take turns. Paper: .75, or the
            schedule 1, .75, .5, whose place within a gap is not public: here each rebuilding takes the next.
        smoothed: What alpha weighs: ``prototypes``, ``vectors`` or ``both``.

    Raises:
        ValueError: If a number is out of range or an option unknown.
    """

    layer: str | None = None
    pooled: bool = False
    centroids: int = 3
    update: int = 5
    alpha: list[float] = field(default_factory=lambda: [0.75])
    smoothed: Literal["prototypes", "vectors", "both"] = "prototypes"

    def __post_init__(self) -> None:
        if self.centroids < 1:
            raise ValueError(f"Expected geometry.centroids of at least 1, got {self.centroids}.")
        if self.update < 0:
            raise ValueError(f"Expected geometry.update to be 0 or more epochs, got {self.update}.")
        if not isinstance(self.alpha, list | tuple) or not self.alpha:
            raise ValueError(f"Expected geometry.alpha to be a list of at least one weight, got {self.alpha!r}.")
        for weight in self.alpha:
            check_share("geometry.alpha", weight, closed=True)
        one_of("smoothed part", self.smoothed, ("prototypes", "vectors", "both"))

    def weights(self, number: int) -> tuple[float, float]:
        """Give the weights of new prototypes and of new vectors in a rebuilding, counted from 0, the first one."""
        weight = self.alpha[(number - 1) % len(self.alpha)] if number else 1.0
        return (1.0 if self.smoothed == "vectors" else weight, 1.0 if self.smoothed == "prototypes" else weight)
