"""Where image files lie, and what lies in them: finding, decoding, and keeping decoded pixels."""

from __future__ import annotations

import contextlib
import io
import os
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from lit_backdoor.presets import cache_folder

__all__ = ["cached_pixels", "data_folders", "decode", "decode_all", "find", "not_found", "to_rgb"]

CACHE_FROM = 2_000  # images; fewer are decoded faster than anybody notices
_CHUNK = 500


def data_folders(root: str | None = None) -> list[Path]:
    """List the folders where data may lie: ``root`` alone if given, else ``$LIT_BACKDOOR_DATA``, if set."""
    named = root or os.environ.get("LIT_BACKDOOR_DATA")
    return [Path(named).expanduser()] if named else []


def not_found(what: str, places: Sequence[Path]) -> FileNotFoundError:
    """Build the error for missing files: where they were looked for and how to say where they are."""
    looked = ", ".join(f"'{place}'" for place in places) or "no folder, as none was named"
    known = os.environ.get("LIT_BACKDOOR_DATA")
    state = f"it is '{known}'" if known else "it is not set"
    return FileNotFoundError(
        f"{what} not found. Looked at: {looked}. Give the path, or set the environment variable LIT_BACKDOOR_DATA to "
        f"the folder that holds the data sets ({state})."
    )


def find(path: str, what: str) -> Path:
    """Resolve a path as given or, if relative, below ``$LIT_BACKDOOR_DATA``.

    Raises:
        FileNotFoundError: If it is at neither place.
    """
    given = Path(path).expanduser()
    places = [given] if given.is_absolute() else [given, *(folder / given for folder in data_folders())]
    for place in places:
        if place.exists():
            return place
    raise not_found(what, places)


def to_rgb(image: Image.Image) -> Image.Image:
    """Turn an image of any mode into RGB.

    Grey values are repeated, 16-bit ones scaled to 8 bits; alpha is dropped, as Pillow's ``convert("RGB")`` does.

    Raises:
        ValueError: If pixels are floats, of which nobody knows what is white.
    """
    if image.mode == "RGB":
        return image
    if image.mode == "F":  # convert() would clip it at 255: all black where white is 1
        raise ValueError("its pixels are floats; save it with 8 or 16 bits")
    if image.mode.startswith("I"):  # 16-bit grey; convert() would clip it at 255
        values = np.asarray(image).astype(np.int64)
        image = Image.fromarray((values.clip(0, 65535) // 257).astype(np.uint8))
    elif image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")  # else Pillow warns about transparency given in bytes
    return image.convert("RGB")


def decode(data: bytes | Path, where: str, size: tuple[int, int] | None = None) -> NDArray[np.uint8]:
    """Decode one image.

    Args:
        data: The encoded bytes, or the file.
        where: File (and row), for the error.
        size: Height and width to resize to, bilinear with antialiasing; None leaves the image as it is.

    Returns:
        uint8 ``[H, W, 3]``.

    Raises:
        ValueError: If there is no image, or a broken one.
    """
    if isinstance(data, bytes) and not data:
        raise ValueError(f"{where}: the image has zero bytes.")
    try:
        with Image.open(io.BytesIO(data) if isinstance(data, bytes) else data) as opened:
            image = to_rgb(opened)
            if size is not None and image.size != size[::-1]:
                image = image.resize(size[::-1], Image.Resampling.BILINEAR)
            return np.asarray(image)
    except Exception as error:  # Pillow's readers raise errors of many kinds
        raise ValueError(f"{where}: not a readable image ({error}). Replace or remove it.") from error


def decode_all(
    count: int, fetch: Callable[[int], tuple[bytes | Path, str]], size: tuple[int, int] | None = None
) -> Tensor:
    """Decode many images of one size in threads (Pillow lets go of the interpreter while it decodes).

    Args:
        count: Number of images, at least 1.
        fetch: Gives the data of one image and its place, for errors.
        size: As in `decode`.

    Returns:
        uint8 ``[N, 3, H, W]``.

    Raises:
        ValueError: If an image is broken, or of another size than the first; names the place.
    """
    first = decode(*fetch(0), size=size)
    pixels = np.empty((count, 3, *first.shape[:2]), np.uint8)

    def fill(start: int) -> None:
        for row in range(start, min(start + _CHUNK, count)):
            data, where = fetch(row)
            image = decode(data, where, size)
            if image.shape != first.shape:
                raise ValueError(
                    f"{where}: the image is {image.shape[0]}x{image.shape[1]} (height x width), the first one "
                    f"{first.shape[0]}x{first.shape[1]}. Give a `size` to resize all images to."
                )
            pixels[row] = image.transpose(2, 0, 1)

    with ThreadPoolExecutor(max_workers=min(8, os.cpu_count() or 1)) as pool:
        list(pool.map(fill, range(0, count, _CHUNK)))
    return torch.from_numpy(pixels)


def cached_pixels(key: str, count: int, make: Callable[[], Tensor]) -> Tensor:
    """Return decoded pixels from the cache folder, or make and keep them there.

    The file appears whole or not at all, and is mapped, so that processes share its memory. A cache that
    cannot be written is done without.

    Args:
        key: Names the content; must change with it.
        count: Number of images; small sets are not kept.
        make: Decodes them: uint8 ``[N, 3, H, W]``.
    """
    if count < CACHE_FROM:
        return make()
    path = cache_folder() / "pixels" / f"{key}.npy"
    with contextlib.suppress(OSError, ValueError, EOFError):
        # copy-on-write, as torch wants writable memory
        kept = np.load(path, mmap_mode="c", allow_pickle=False)
        if kept.dtype == np.uint8 and kept.ndim == 4 and len(kept) == count:
            return torch.from_numpy(kept)
    pixels = make()
    with contextlib.suppress(OSError):
        _write_whole(path, pixels.numpy())
    return pixels


def _write_whole(path: Path, array: NDArray[np.uint8]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, suffix=".part")
    try:
        with os.fdopen(handle, "wb") as file:
            np.save(file, array, allow_pickle=False)
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
