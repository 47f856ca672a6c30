"""A U-Net that makes an image of an image: generator and purifier."""

from __future__ import annotations

from typing import Literal, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lit_backdoor.errors import one_of
from lit_backdoor.recipe import Recorded

__all__ = ["UNet"]


class UNet(Recorded, nn.Module):
    """U-Net with skip connections and one attention module at the bottleneck (Ronneberger et al. 2015).

    Images are float ``[B, C, H, W]`` in [0, 1], and so is the result, for any size from ``2**downs`` px on: sizes
    between are padded and cropped. Norms see one image at a time, so batches do not mix.

    Args:
        base: Width at full size; each of the ``downs`` halvings doubles it, the bottleneck keeps the last.
        downs: Number of halvings.
        attention: At the bottleneck: ``"spatial"`` self-attention, ``"cbam"`` or ``"none"``.
        output: ``"residual"``: ``clamp(x + bound * tanh(u), 0, 1)``; ``"direct"``: ``sigmoid(u)``.
        start: Last layer at the start: ``"identity"`` zero, so that the residual is exactly none; ``"small"`` weights a
            hundredth of the usual; ``"random"`` the usual.
        bound: Largest change of a pixel of a residual output, in (0, 1].
        channels: Channels of the images.

    Raises:
        ValueError: If an option is not known, or options do not go together.
    """

    def __init__(
        self,
        base: int = 16,
        downs: int = 3,
        attention: Literal["spatial", "cbam", "none"] = "spatial",
        output: Literal["residual", "direct"] = "residual",
        start: Literal["identity", "small", "random"] = "identity",
        bound: float = 1.0,
        channels: int = 3,
    ) -> None:
        super().__init__()
        _check(base, downs, output, start, bound)
        widths = [base * 2**level for level in range(downs)]
        self.downs, self.output, self.bound = downs, output, bound
        self.encoder = nn.ModuleList(
            _block(before, after) for before, after in zip([channels, *widths[:-1]], widths, strict=True)
        )
        self.bottleneck = _block(widths[-1], widths[-1])
        self.attention = _attention(attention, widths[-1])
        # narrowed before they grow: at full size that would cost the most
        self.ups = nn.ModuleList(
            nn.Conv2d(below, width, 1) for below, width in zip([widths[-1], *widths[:0:-1]], widths[::-1], strict=True)
        )
        self.decoder = nn.ModuleList(_block(2 * width, width) for width in reversed(widths))
        self.last = nn.Conv2d(base, channels, 1)
        if start != "random":
            self.last.weight.data.mul_(0.0 if start == "identity" else 0.01)
            nn.init.zeros_(cast(Tensor, self.last.bias))
        self.to(memory_format=torch.channels_last)

    def forward(self, images: Tensor) -> Tensor:
        """Make images of images, ``[B, C, H, W]`` in [0, 1].

        Raises:
            ValueError: If a side is shorter than ``2**downs``.
        """
        height, width = images.shape[-2:]
        step = 2**self.downs
        if min(height, width) < step:
            raise ValueError(f"Expected images of at least {step}x{step} px, got {height}x{width}. Use fewer downs.")
        x = images.contiguous(memory_format=torch.channels_last)
        if height % step or width % step:
            x = F.pad(x, (0, -width % step, 0, -height % step), mode="replicate")
        skips = []
        for block in self.encoder:
            x = block(x)
            skips.append(x)
            x = F.max_pool2d(x, 2)
        x = self.attention(self.bottleneck(x))
        for up, block in zip(self.ups, self.decoder, strict=True):
            x = F.interpolate(up(x), scale_factor=2, mode="nearest")
            x = block(torch.cat([skips.pop(), x], dim=1))
        change = self.last(x)[..., :height, :width].to(images.dtype)
        if self.output == "direct":
            return cast(Tensor, change.sigmoid())
        return cast(Tensor, (images + self.bound * change.tanh()).clamp(0, 1))


class SpatialAttention(nn.Module):
    """Self-attention over positions, added with a factor that starts at zero (Zhang et al. 2019, SAGAN, Eq. 3)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.query_key_value = nn.Conv2d(width, 3 * width, 1)
        self.project = nn.Conv2d(width, width, 1)
        self.gamma = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        """Let every position look at all others, ``[B, C, h, w]``."""
        query, key, value = self.query_key_value(x).flatten(2).transpose(1, 2).chunk(3, dim=-1)
        seen = F.scaled_dot_product_attention(query, key, value).transpose(1, 2).reshape(x.shape)
        return cast(Tensor, x + self.gamma * self.project(seen))


class CBAM(nn.Module):
    """Weights for channels, then for positions (Woo et al. 2018, CBAM, Eq. 2 and 3)."""

    def __init__(self, width: int, reduction: int = 4) -> None:
        super().__init__()
        inner = max(width // reduction, 1)
        self.channel = nn.Sequential(nn.Conv2d(width, inner, 1), nn.ReLU(), nn.Conv2d(inner, width, 1))
        self.spatial = nn.Conv2d(2, 1, 7, padding=3)

    def forward(self, x: Tensor) -> Tensor:
        """Weight the maps, ``[B, C, h, w]``."""
        mean, top = x.mean((2, 3), keepdim=True), x.amax((2, 3), keepdim=True)
        x = x * (self.channel(mean) + self.channel(top)).sigmoid()
        summary = torch.cat([x.mean(1, keepdim=True), x.amax(1, keepdim=True)], dim=1)
        return cast(Tensor, x * self.spatial(summary).sigmoid())


def _block(before: int, after: int) -> nn.Sequential:
    """Two 3x3 convolutions; the norm divides in groups of 8 channels."""
    return nn.Sequential(
        nn.Conv2d(before, after, 3, padding=1, bias=False),
        nn.GroupNorm(max(after // 8, 1), after),
        nn.ReLU(inplace=True),
        nn.Conv2d(after, after, 3, padding=1),
        nn.ReLU(inplace=True),
    )


def _attention(kind: str, width: int) -> nn.Module:
    kinds: dict[str, type[nn.Module]] = {"spatial": SpatialAttention, "cbam": CBAM}
    one_of("attention", kind, [*kinds, "none"])
    return kinds[kind](width) if kind in kinds else nn.Identity()


def _check(base: int, downs: int, output: str, start: str, bound: float) -> None:
    if base < 1 or not 1 <= downs <= 16:  # sides of 2^16 pixels
        raise ValueError(f"Expected a base width of at least 1 and downs from 1 to 16, got base={base}, downs={downs}.")
    one_of("output", output, ("residual", "direct"))
    one_of("start", start, ("identity", "small", "random"))
    if output == "direct" and (start == "identity" or bound != 1):
        raise ValueError("Expected start 'small' or 'random' and bound 1 for a direct output: it has no residual.")
    if not 0 < bound <= 1:
        raise ValueError(f"Expected a bound in (0, 1], got {bound}.")
