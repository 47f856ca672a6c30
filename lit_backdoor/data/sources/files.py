"""Where image files lie, and what lies in them: finding, decoding, and keeping decoded pixels."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lit_backdoor.pictures import READER, decode, planes
from lit_backdoor.presets import at_home, cache_folder

__all__ = ["cached_pixels", "data_folders", "decode", "decode_all", "find", "not_found"]

CACHE_FROM = 2_000  # images; fewer are decoded faster than anybody notices
_CHUNK = 500


def data_folders(root: str | None = None) -> list[Path]:
    """List the folders where data may lie: ``root`` alone if given, else ``$LIT_BACKDOOR_DATA``, if set."""
    named = root or os.environ.get("LIT_BACKDOOR_DATA")
    return [at_home(named)] if named else []


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
    given = at_home(path)
    places = [given] if given.is_absolute() else [given, *(folder / given for folder in data_folders())]
    for place in places:
        if place.exists():
            return place
    raise not_found(what, places)


def decode_all(
    count: int,
    fetch: Callable[[int], tuple[bytes | str | Path, str]],
    size: tuple[int, int] | None = None,
    crop: bool = False,
) -> Tensor:
    """Decode many images of one size in threads (Pillow lets go of the interpreter while it decodes).

    Args:
        count: Number of images, at least 1.
        fetch: Gives the data of one image and its place, for errors.
        size: As in `decode`.
        crop: As in `decode`.

    Returns:
        uint8 ``[N, 3, H, W]``.

    Raises:
        ValueError: If an image is broken, or of another size than the first; names the place.
    """
    height, width = planes(*fetch(0), size=size, crop=crop).shape[1:]
    pixels = np.empty((count, 3, height, width), np.uint8)

    def fill(start: int) -> None:
        for row in range(start, min(start + _CHUNK, count)):
            data, where = fetch(row)
            image = planes(data, where, size, crop)
            if image.shape[1:] != (height, width):
                raise ValueError(
                    f"{where}: the image is {image.shape[1]}x{image.shape[2]} (height x width), the first one "
                    f"{height}x{width}. Give a `size` to resize all images to."
                )
            pixels[row] = image

    with ThreadPoolExecutor(max_workers=min(8, os.cpu_count() or 1)) as pool:
        list(pool.map(fill, range(0, count, _CHUNK)))
    return torch.from_numpy(pixels)


def cached_pixels(key: str, count: int, make: Callable[[], Tensor], least: int | None = None) -> Tensor:
    """Return decoded pixels from the cache folder, or make and keep them there.

    The file appears whole or not at all, and is mapped, so that processes share its memory. A cache that
    cannot be written is done without.

    Args:
        key: Names the content; must change with it.
        count: Number of images.
        make: Decodes them: uint8 ``[N, 3, H, W]``.
        least: Fewer images are not kept; default `CACHE_FROM`.
    """
    if count < (CACHE_FROM if least is None else least):
        return make()
    path = cache_folder() / "pixels" / f"{key}-{READER}.npy"
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
