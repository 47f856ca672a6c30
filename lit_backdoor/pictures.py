"""The one reader of image files, for data and for triggers: pixels as people see them, or an error of one line."""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

__all__ = ["MOST_PIXELS", "READER", "decode", "open_picture", "picture_size", "planes", "split_alpha", "to_rgb"]

READER = 2  # part of the names of cached pixels; to be raised whenever a file gives other pixels
MOST_PIXELS = 2**26  # 200 MB as RGB
LONGEST_SIDE = 2**15
_FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")  # Pillow would start a program for others, such as EPS
_ORIENTATION = 0x0112
_LARGE_GREY = 65535

# Sizes are checked here, before any pixel is decoded, with an error instead of Pillow's warning.
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)


@contextmanager
def open_picture(data: bytes | str | Path, where: str) -> Iterator[Image.Image]:
    """Open an image of a reasonable size; nothing is decoded yet.

    Args:
        data: The encoded bytes, or the file.
        where: File (and row), for the error.

    Raises:
        ValueError: If there is no image, a broken one, or one of more than 2**26 pixels or 2**15 on a side; also for
            whatever Pillow raises while the image is in use.
    """
    if isinstance(data, bytes) and not data:
        raise ValueError(f"{where}: the image has zero bytes.")
    try:
        with Image.open(io.BytesIO(data) if isinstance(data, bytes) else data, formats=_FORMATS) as image:
            width, height = image.size
            if width * height > MOST_PIXELS or max(width, height) > LONGEST_SIDE:
                raise ValueError(
                    f"it has {width}x{height} pixels; at most {MOST_PIXELS:,} and {LONGEST_SIDE:,} on a side are read"
                )
            yield image
    except FileNotFoundError as error:
        raise ValueError(f"{where}: the file is gone, or is a link to nowhere. Restore it, or run again.") from error
    except Exception as error:  # Pillow's readers raise errors of many kinds
        raise ValueError(f"{where}: not a readable image ({_said(error)}). Replace or remove it.") from error


def picture_size(data: bytes | str | Path, where: str) -> tuple[int, int]:
    """Read the height and width of an image as people see it, without decoding it; raises as `open_picture`."""
    with open_picture(data, where) as image:
        turned = image.format != "TIFF" and image.getexif().get(_ORIENTATION, 1) in (5, 6, 7, 8)  # Pillow turns TIFFs
        return (image.width, image.height) if turned else (image.height, image.width)


def decode(
    data: bytes | str | Path, where: str, size: tuple[int, int] | None = None, crop: bool = False
) -> NDArray[np.uint8]:
    """Decode one image.

    The orientation that a camera noted is applied. Transparent parts are white.

    Args:
        data: The encoded bytes, or the file.
        where: File (and row), for the error.
        size: Height and width to resize to, bilinear with antialiasing; None leaves the image as it is.
        crop: Whether to cut the largest centered part of the size's shape first; otherwise the aspect ratio changes.

    Returns:
        uint8 ``[H, W, 3]``.

    Raises:
        ValueError: If there is no image, a broken one, or one that is too large.
    """
    return planes(data, where, size, crop).transpose(1, 2, 0)


def planes(
    data: bytes | str | Path, where: str, size: tuple[int, int] | None = None, crop: bool = False
) -> NDArray[np.uint8]:
    """Decode one image as `decode` does, to uint8 ``[3, H, W]``, faster to copy into a batch."""
    with open_picture(data, where) as opened:
        ImageOps.exif_transpose(opened, in_place=True)
        image = to_rgb(opened)
        if size is not None and image.size != size[::-1]:
            image = image.resize(size[::-1], Image.Resampling.BILINEAR, _centered(image, size) if crop else None)
        lines = np.frombuffer(image.tobytes("raw", "RGB;L"), np.uint8)  # each line as its reds, greens and blues
        return lines.reshape(image.height, 3, image.width).transpose(1, 0, 2)


def to_rgb(image: Image.Image) -> Image.Image:
    """Turn an image of any mode into RGB, transparent parts over white.

    Grey values are repeated, and 16-bit ones scaled to 8 bits.

    Raises:
        ValueError: If pixels are floats or have 32 bits, of which nobody knows what is white.
    """
    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    image, alpha = split_alpha(image)
    if alpha is None:
        return image
    return Image.composite(image, Image.new("RGB", image.size, "white"), alpha)


def split_alpha(image: Image.Image) -> tuple[Image.Image, Image.Image | None]:
    """Split an image into RGB and alpha (mode L); None where it has no alpha, or an opaque one; raises as `to_rgb`."""
    if image.mode == "F":  # convert() would clip it at 255: all black where white is 1
        raise ValueError("its pixels are floats; save it with 8 or 16 bits")
    if image.mode.startswith("I"):  # 16-bit grey; convert() would clip it at 255
        values = np.asarray(image)
        if values.size and (values.min() < 0 or values.max() > _LARGE_GREY):
            raise ValueError("its pixels have 32 bits; save it with 8 or 16 bits")
        return Image.fromarray((values // 257).astype(np.uint8)).convert("RGB"), None
    if not image.has_transparency_data:
        return image.convert("RGB"), None
    image = image.convert("RGBA")
    alpha = image.getchannel("A")
    return image.convert("RGB"), None if alpha.getextrema() == (255, 255) else alpha


def _centered(image: Image.Image, size: tuple[int, int]) -> tuple[float, float, float, float]:
    scale = min(image.width / size[1], image.height / size[0])
    left, top = (image.width - size[1] * scale) / 2, (image.height - size[0] * scale) / 2
    return left, top, left + size[1] * scale, top + size[0] * scale


def _said(error: Exception) -> str:
    if isinstance(error, UnidentifiedImageError):
        return "no known format"
    return " ".join((str(error) or type(error).__name__).split()).removesuffix(".")
