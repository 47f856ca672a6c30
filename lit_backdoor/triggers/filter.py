"""Filter: a color filter over the whole image."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from lit_backdoor.errors import check_share, one_of
from lit_backdoor.triggers.pattern import FixedPattern

__all__ = ["Filter"]

LUMA = (0.299, 0.587, 0.114)


@dataclass(frozen=True)
class _Style:
    saturation: float  # 0 is gray, 1 leaves the colors
    contrast: float  # slope about middle gray
    lift: tuple[float, float, float]  # what black becomes
    tint: tuple[float, float, float]  # what white becomes
    rim: tuple[float, float, float] | None = None  # what white becomes in the corners, if something else


STYLES = {
    "nashville": _Style(0.85, 1.1, (0.13, 0.05, 0.24), (1.0, 0.93, 0.72)),
    "gotham": _Style(0.15, 1.5, (0.02, 0.04, 0.12), (0.92, 0.96, 1.0)),
    "kelvin": _Style(1.3, 1.1, (0.20, 0.08, 0.0), (1.0, 0.80, 0.45)),
    "lomo": _Style(1.4, 1.5, (0.0, 0.0, 0.05), (1.0, 1.0, 0.95), (0.25, 0.25, 0.30)),
    "toaster": _Style(0.9, 0.9, (0.18, 0.06, 0.02), (0.75, 0.42, 0.18), (1.0, 0.90, 0.80)),
}


class Filter(FixedPattern):
    """Recolor images as photo apps do; the styles are formulas of this project, after the apps' names.

    With l the luma: ``s = l + saturation (x - l)``, ``c = 1/2 + contrast (s - 1/2)``, clipped, then per channel
    ``lift + (tint - lift) c``. Two styles change the tint with the squared distance from the center. Images of one
    channel get the luma of the colors that the style gives to their gray.

    Args:
        style: ``"nashville"`` (pink shadows, yellow lights), ``"gotham"`` (cold, nearly gray), ``"kelvin"`` (orange),
            ``"lomo"`` (strong colors, dark corners) or ``"toaster"`` (dark orange center, light corners).
        strength: Share of the filtered image in the result, in (0, 1].

    Raises:
        ValueError: If the style is unknown, the strength out of range, or (on call) images have not 1 or 3 channels.
    """

    def __init__(self, style: str = "nashville", strength: float = 1.0) -> None:
        super().__init__()
        self.style = one_of("filter style", style, STYLES)
        self.strength = check_share("the filter's strength", strength, closed=True)

    def make_pattern(self, channels: int, height: int, width: int) -> Tensor:
        """Make the table of luma weights, lift and tint, ``[3, channels, H, W]``, or 1x1 px where it is uniform."""
        if channels not in (1, 3):
            raise ValueError(f"Expected images with 1 or 3 channels, got {channels}.")
        style = STYLES[self.style]
        table = torch.tensor([LUMA, style.lift, style.tint])[:, :, None, None]
        if style.rim is not None:
            y, x = (torch.linspace(-1, 1, size) for size in (height, width))
            away = (y[:, None] ** 2 + x**2) / 2  # 0 in the center, 1 in the corners
            table = table.repeat(1, 1, height, width)
            table[2] += away * (torch.tensor(style.rim)[:, None, None] - table[2])
        if channels == 1:
            table = (table * table[:1]).sum(1, keepdim=True)
            table[0] = 1
        return table

    def forward(self, images: Tensor, index: Tensor) -> Tensor:
        """Filter the images."""
        style = STYLES[self.style]
        weights, lift, tint = self.pattern(images).to(images.dtype)
        luma = (images * weights).sum(-3, keepdim=True)
        toned = 0.5 + style.contrast * (luma + style.saturation * (images - luma) - 0.5)
        filtered = lift + (tint - lift) * toned.clamp(0, 1)
        return torch.lerp(images, filtered, self.strength).clamp(0, 1)
