"""Images per second from a folder of JPEGs, side by side with torchvision's ImageFolder; and memory per row.

Both give float batches in [0, 1]: torchvision by ToTensor in its workers, this package by uint8 rows and one conversion
of the batch. Passes alternate, so that other load on the machine meets both; each is the first over fresh copies of the
files. Run from the repository's root: ``OMP_NUM_THREADS=1 python tests/benchmarks/bench_folder.py``
"""

import argparse
import statistics
import sys
import tempfile
import time
import tracemalloc
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader
from torchvision.datasets import ImageFolder
from torchvision.transforms import Compose, Resize, ToTensor

from lit_backdoor.data import BackdoorDataModule, Split
from lit_backdoor.data.sources import ImageFolderSource
from lit_backdoor.data.sources.listing import Listing

BATCH = 64


def write(root: Path, count: int, side: int) -> Path:
    """Write smooth random JPEGs into two class folders."""
    draw = np.random.default_rng(0)
    for row in range(count):
        small = draw.integers(0, 256, (side // 8, side // 8, 3), dtype=np.uint8)
        path = root / f"class {row % 2}" / f"{row:05}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(small).resize((side, side), Image.Resampling.BICUBIC).save(path, quality=90)
    return root


def theirs(root: Path, size: int, workers: int) -> Iterator[Tensor]:
    """Give torchvision's batches."""
    data = ImageFolder(root, Compose([Resize((size, size)), ToTensor()]))
    yield from (images for images, _ in DataLoader(data, BATCH, shuffle=True, drop_last=True, num_workers=workers))


def ours(root: Path, size: int, workers: int) -> Iterator[Tensor]:
    """Give this package's batches of the training view, finished."""
    source = ImageFolderSource(str(root), str(root), size)
    data = BackdoorDataModule(source, Split(root_pool=0), None, None, BATCH, num_workers=workers)
    for batch in data.loader("train"):
        yield data.images(batch)["image"]


def seconds(run: Callable[[], Iterator[Tensor]]) -> float:
    """Time a pass, the making of its loader and workers included."""
    start = time.perf_counter()
    for images in run():
        images.sum()
    return time.perf_counter() - start


def memory_per_row(rows: int) -> float:
    """Bytes that one row of a listing takes, with a name of 20 characters as in ImageNet."""
    tracemalloc.start()
    listing = Listing()
    for row in range(rows):
        listing.add(f"/data/imagenet/train/n{row // 1300:08}", f"n{row // 1300:08}_{row % 1300:05}.JPEG", row // 1300)
    used = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    return used / len(listing)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=512)
    parser.add_argument("--side", type=int, default=224, help="side of the JPEGs")
    parser.add_argument("--size", type=int, default=224, help="side of the batches")
    parser.add_argument("--repeats", type=int, default=5)
    args = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        root = write(Path(folder), args.images, args.side)
        for workers in (0, 2):
            runs = [partial(run, root, args.size, workers) for run in (theirs, ours)]
            pairs = [[seconds(run) for run in runs] for _ in range(args.repeats)]
            rates = [args.images / statistics.median(column) for column in zip(*pairs, strict=True)]
            ratio = statistics.median(one / two for one, two in pairs)
            print(f"{workers} workers: torchvision {rates[0]:.0f}, here {rates[1]:.0f} images/s; ratio {ratio:.2f}")
    print(f"{memory_per_row(200_000):.1f} bytes per row")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
