"""Refool: another scene is mirrored in the picture, as in a window."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from lit_backdoor.errors import check_share
from lit_backdoor.functional.precision import full, no_autocast
from lit_backdoor.triggers.paired import PairedTrigger

__all__ = ["Reflection"]


class Reflection(PairedTrigger):
    """Mix a partner's reflection in: ``x' = (1 - w) x + w r``, ``r = (1 - g) b + g shift(b)``, b the blurred partner.

    After Liu et al., "Reflection Backdoor: A Natural Backdoor Attack on Deep Neural Networks", ECCV 2020: in focus
    (no blur, no ghost), out of focus (blur), or as a ghost (thick glass reflects twice). The paper adds reflections of
    pictures that it selects from another data set; here any other image is reflected, and the mixture needs no
    clipping.

    Args:
        weight: Weight of the reflection, w, in (0, 1).
        ghost: Weight of the second reflection, g, in [0, 1).
        shift: Pixels down and to the right that the second reflection lies from the first.
        blur: Standard deviation of the blur in pixels; 0 for none.

    Raises:
        ValueError: If an argument is out of range.
    """

    def __init__(self, weight: float = 0.4, ghost: float = 0.4, shift: int = 4, blur: float = 0.0) -> None:
        super().__init__()
        if shift < 0 or blur < 0:
            raise ValueError(f"Expected shift and blur of Reflection to be at least 0, got {shift} and {blur}.")
        self.weight = check_share("the weight of a reflection", weight)
        self.ghost = ghost and check_share("the weight of a reflection's ghost", ghost)
        self.shift, self.blur = shift, blur

    def forward(self, images: Tensor, index: Tensor, partners: Tensor | None = None) -> Tensor:
        """Mix the partners' reflections in.

        Raises:
            ValueError: If there are no partners.
        """
        others = full(self.given(partners))
        with no_autocast(images):
            if self.blur and len(others):
                from kornia.filters import gaussian_blur2d  # slow to import

                side = 2 * round(3 * self.blur) + 1
                others = gaussian_blur2d(others, (side, side), (self.blur, self.blur), border_type="replicate")
            height, width = others.shape[-2:]
            second = F.pad(others, (self.shift, 0, self.shift, 0), mode="replicate")[..., :height, :width]
            reflected = others + self.ghost * (second - others)
            return (full(images) + self.weight * (reflected - full(images))).clamp(0, 1).to(images.dtype)
