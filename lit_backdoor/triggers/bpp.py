"""BppAttack: few color levels are the trigger."""

from __future__ import annotations

from torch import Tensor

from lit_backdoor.functional.precision import full
from lit_backdoor.triggers.paired import PairedTrigger

__all__ = ["Bpp"]


class Bpp(PairedTrigger):
    """Round colors to a few levels: ``q(x) = round(x (s - 1)) / (s - 1)``; covers get another image's rounding error.

    Wang et al., "BppAttack: Stealthy and Efficient Trojan Attacks against Deep Neural Networks via Image Quantization
    and Contrastive Adversarial Learning", CVPR 2022. A cover (its negative sample) is ``clip(x + q(p) - p)`` with its
    partner p, under its true label, so that only an image's own rounding is a trigger. Without the paper's dithering,
    as in BackdoorBench; the paper's attacker controls training, this one only the data.

    Args:
        levels: Values that a color may have, s.

    Raises:
        ValueError: If there are fewer than 2 levels.
    """

    def __init__(self, levels: int = 8) -> None:
        super().__init__()
        if levels < 2:
            raise ValueError(f"Expected at least 2 levels of Bpp, got {levels}.")
        self.levels = levels

    def forward(self, images: Tensor, index: Tensor, partners: Tensor | None = None) -> Tensor:
        """Round the images; partners are not needed."""
        return ((full(images) * (self.levels - 1)).round() / (self.levels - 1)).clamp(0, 1).to(images.dtype)

    def cover(self, images: Tensor, index: Tensor, partners: Tensor | None = None) -> Tensor:
        """Add what rounding changes in the partners.

        Raises:
            ValueError: If there are no partners.
        """
        others = self.given(partners)
        return (images + (self(others, index) - others)).clamp(0, 1)
