"""Pictures inside the page."""

from __future__ import annotations

import base64
import io

import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

__all__ = ["LARGEST", "amplified", "data_uri", "gain_for", "heat_uri"]

LARGEST = 96  # px; larger pictures are shrunk, so that the page stays small
_HEAT = 32  # px; the browser smooths it over the picture
_RAMP = ((14, 10, 48, 205), (190, 40, 90, 125), (255, 220, 80, 85))  # from cold to hot: red, green, blue, opacity
_GAINS = (1, 2, 4, 8, 16, 32, 64)


def data_uri(image: Tensor) -> str:
    """Write an image, float ``[C, H, W]`` in [0, 1], as a PNG inside an address."""
    side = max(image.shape[-2:])
    if side > LARGEST:
        size = [max(1, round(length * LARGEST / side)) for length in image.shape[-2:]]
        image = F.interpolate(image[None].float(), size, mode="bilinear", antialias=True, align_corners=False)[0]
    pixels = image.float().clamp(0, 1).mul(255).round().to(torch.uint8)
    pixels = pixels.expand(3, -1, -1) if len(pixels) == 1 else pixels
    return _png(pixels, "RGB")


def heat_uri(heat: Tensor) -> str:
    """Write a heat map, ``[h, w]`` in [0, 1], as a PNG to lay over a picture: dark where it is cold, warm where hot."""
    size = (_HEAT, max(1, round(_HEAT * heat.shape[1] / heat.shape[0])))
    smooth = F.interpolate(heat[None, None].float(), size, mode="bicubic", align_corners=False).clamp(0, 1)[0]
    cold, middle, hot = (torch.tensor(color, dtype=torch.float32).view(4, 1, 1) for color in _RAMP)
    color = torch.where(smooth < 0.5, torch.lerp(cold, middle, 2 * smooth), torch.lerp(middle, hot, 2 * smooth - 1))
    return _png(color.round().to(torch.uint8), "RGBA")


def _png(pixels: Tensor, mode: str) -> str:
    file = io.BytesIO()
    Image.fromarray(pixels.permute(1, 2, 0).contiguous().numpy(), mode).save(file, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()


def gain_for(difference: Tensor) -> int:
    """Choose how much a difference in [-1, 1] is amplified: the strongest that keeps 99.5 % of its values in range."""
    strong = float(difference.abs().flatten().float().quantile(0.995)) if difference.numel() else 0.0
    return max((gain for gain in _GAINS if gain * strong <= 1), default=1) if strong > 0 else 1


def amplified(difference: Tensor, gain: int) -> Tensor:
    """Show a difference in [-1, 1] around middle gray, which stands for no change."""
    return (0.5 + gain * difference / 2).clamp(0, 1)
