"""Patterns that lie in files: pictures and arrays, with a mask that says where they cover the image."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor
from torch.nn import functional as F

from lit_backdoor.pictures import MOST_PIXELS, open_picture, split_alpha

__all__ = ["masked", "overlay", "read_pattern"]

_WHAT = "The trigger's pattern"


def read_pattern(path: str, channels: int, height: int, width: int) -> Tensor:
    """Read a pattern, and where it covers the image, resized (bicubic) to ``height`` and ``width``.

    Pictures are read as data is: turned as their camera noted, 16 bits scaled. Their alpha is a mask. A ``.npy`` file
    holds ``[H, W]``, ``[H, W, C]`` or ``[C, H, W]`` with 1, 3 or 4 (alpha) channels, as uint8 or floats in [0, 1].

    Args:
        path: The picture, or the ``.npy`` file.
        channels: 1 or 3; one channel is the picture's luma.
        height: Rows of the result.
        width: Columns of the result.

    Returns:
        float32 ``[channels, height, width]`` in [0, 1]; one more channel, the mask, if the file has alpha.

    Raises:
        ValueError: If a file is missing or of another kind, or ``channels`` is neither 1 nor 3.
    """
    if channels not in (1, 3):
        raise ValueError(f"Expected images with 1 or 3 channels where the pattern is an image file, got {channels}.")
    pattern, cover = _read(path, channels, (height, width))
    return pattern if cover is None else torch.cat((pattern, cover))


def masked(pattern: Tensor, channels: int, mask: str | None) -> Tensor:
    """Add a mask from a file to a pattern, or multiply the one that it has.

    Args:
        pattern: As `read_pattern` gives it.
        channels: How many of its channels are colors.
        mask: The picture, whose luma counts, or ``.npy`` file; None leaves the pattern as it is.
    """
    if mask is None:
        return pattern
    given = _read(mask, 1, (pattern.shape[1], pattern.shape[2]))[0]
    return torch.cat((pattern[:channels], given * pattern[channels:] if len(pattern) > channels else given))


def overlay(images: Tensor, pattern: Tensor, alpha: float = 1.0) -> Tensor:
    """Put a pattern on images: ``x + alpha m (t - x)``, where m is the mask.

    Args:
        images: ``[B, C, H, W]`` in [0, 1].
        pattern: t, ``[C, H, W]``, or t and m, ``[C + 1, H, W]``, as `read_pattern` gives them.
        alpha: Weight of the pattern, in (0, 1].
    """
    picture, mask = pattern[: images.shape[1]].to(images.dtype), pattern[images.shape[1] :].to(images.dtype)
    if len(mask):
        return (images + alpha * mask * (picture - images)).clamp(0, 1)
    return ((1 - alpha) * images + alpha * picture).clamp(0, 1)


def _read(path: str, channels: int, size: tuple[int, int]) -> tuple[Tensor, Tensor | None]:
    if not Path(path).is_file():
        raise ValueError(f"Expected an image file for the trigger's pattern, got '{path}', which does not exist.")
    if Path(path).suffix.lower() == ".npy":
        return _of_array(path, channels, size)
    with open_picture(path, f"{_WHAT} '{path}'") as opened:
        ImageOps.exif_transpose(opened, in_place=True)
        return _of_picture(*split_alpha(opened), channels, size)


def _of_picture(
    image: Image.Image, alpha: Image.Image | None, channels: int, size: tuple[int, int]
) -> tuple[Tensor, Tensor | None]:
    def pixels(picture: Image.Image) -> Tensor:
        resized = np.array(picture.resize(size[::-1], Image.Resampling.BICUBIC))
        return torch.from_numpy(resized).reshape(*size, -1).permute(2, 0, 1).float() / 255

    return pixels(image.convert("RGB" if channels == 3 else "L")), None if alpha is None else pixels(alpha)


def _of_array(path: str, channels: int, size: tuple[int, int]) -> tuple[Tensor, Tensor | None]:
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise ValueError(f"{_WHAT} '{path}': not a readable .npy file ({error}).") from error
    if array.ndim == 2:
        array = array[..., None]
    elif array.ndim == 3 and array.shape[0] in (1, 3, 4) and array.shape[2] not in (1, 3, 4):
        array = array.transpose(1, 2, 0)
    if array.ndim != 3 or array.shape[2] not in (1, 3, 4) or not 0 < array.shape[0] * array.shape[1] <= MOST_PIXELS:
        raise ValueError(
            f"{_WHAT} '{path}': expected [H, W], [H, W, C] or [C, H, W] with 1, 3 or 4 channels and at most "
            f"{MOST_PIXELS:,} pixels, got {list(array.shape)}."
        )
    if array.dtype == np.uint8:
        parts = [Image.fromarray(np.ascontiguousarray(array[..., part])) for part in range(array.shape[2])]
        image = parts[0].convert("RGB") if len(parts) == 1 else Image.merge("RGB", parts[:3])
        return _of_picture(image, parts[3] if len(parts) == 4 else None, channels, size)
    if array.dtype.kind != "f":
        raise ValueError(f"{_WHAT} '{path}': expected uint8 or floats in [0, 1], got {array.dtype}.")
    values = torch.from_numpy(np.array(array, np.float32)).permute(2, 0, 1)
    if not (float(values.min()) >= 0 and float(values.max()) <= 1):
        raise ValueError(
            f"{_WHAT} '{path}': expected floats in [0, 1], got {float(values.min()):.3g} to {float(values.max()):.3g}. "
            "Divide by 255, or save it as uint8."
        )
    if tuple(values.shape[1:]) != size:
        values = F.interpolate(values[None], size, mode="bicubic", antialias=True)[0].clamp(0, 1)
    picture, alpha = values[:3], values[3:]
    if channels == 1 and len(picture) == 3:
        picture = (picture * torch.tensor([0.299, 0.587, 0.114]).view(3, 1, 1)).sum(0, keepdim=True)
    return picture.expand(channels, -1, -1).contiguous(), alpha if len(alpha) else None
