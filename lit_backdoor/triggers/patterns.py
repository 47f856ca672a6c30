"""Patterns that triggers are made of: seeded noise, colors, checkers, pictures. Float ``[C, H, W]`` in [0, 1]."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor

__all__ = ["checkerboard", "gaussian_noise", "picture", "row_noise", "uniform_noise"]


def uniform_noise(channels: int, height: int, width: int, seed: int) -> Tensor:
    """Draw a pattern uniformly from [0, 1)."""
    return torch.rand(channels, height, width, generator=torch.Generator().manual_seed(seed))


def gaussian_noise(channels: int, height: int, width: int, seed: int) -> Tensor:
    """Draw a pattern from a standard normal distribution, clipped to [0, 1]."""
    return torch.randn(channels, height, width, generator=torch.Generator().manual_seed(seed)).clamp(0, 1)


def checkerboard(channels: int, height: int, width: int) -> Tensor:
    """Give alternating black and white pixels, white at the top left."""
    rows, columns = torch.arange(height)[:, None], torch.arange(width)[None, :]
    return ((rows + columns) % 2 == 0).float().expand(channels, height, width).clone()


def picture(path: str, channels: int, height: int, width: int) -> Tensor:
    """Read an image file and bring it to size.

    Raises:
        ValueError: If the file is missing or no image.
    """
    try:
        with Image.open(Path(path)) as image:
            resized = image.convert("RGB" if channels == 3 else "L").resize((width, height), Image.Resampling.BILINEAR)
    except (OSError, UnidentifiedImageError) as error:
        raise ValueError(f"Expected the trigger's image file at '{path}' to be readable: {error}.") from error
    pixels = torch.from_numpy(np.array(resized)).float() / 255
    return pixels.permute(2, 0, 1).contiguous() if channels == 3 else pixels[None]


def row_noise(index: Tensor, count: int, seed: int) -> Tensor:
    """Draw ``count`` standard normal numbers for each row from (seed, row) alone; ``[B, count]``, on index's device.

    A counter-based hash (the finalizer of MurmurHash3 on 32-bit words) feeds the Box-Muller transform, so a row gets
    the same numbers in any batch, on any device.
    """
    counter = torch.arange(count, device=index.device)[None, :]
    word = _mix(index[:, None].long() * 0x9E3779B1 + seed * 0x85EBCA77 + 0x165667B1)
    first, second = _mix(word ^ (2 * counter + 1)), _mix(word ^ (2 * counter + 2))
    radius = torch.sqrt(-2 * torch.log((first.double() + 1) / 2**32))
    return (radius * torch.cos(2 * torch.pi * second.double() / 2**32)).float()


def _mix(words: Tensor) -> Tensor:
    words = words & 0xFFFFFFFF
    words = ((words ^ (words >> 16)) * 0x85EBCA6B) & 0xFFFFFFFF
    words = ((words ^ (words >> 13)) * 0xC2B2AE35) & 0xFFFFFFFF
    return words ^ (words >> 16)
