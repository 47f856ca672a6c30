"""Rows per second of the loader on one core: alone, finished without and with trigger and augmentation.

Run from the repository's root: ``OMP_NUM_THREADS=1 python tests/benchmarks/bench_loader.py``
"""

import argparse
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from lit_backdoor.data import BackdoorDataModule, CropFlip, Rows, Source, Split
from lit_backdoor.triggers.base import Attack, Trigger


class RandomRows(Rows):
    """Random images in memory."""

    def __init__(self, count: int, size: int) -> None:
        generator = torch.Generator().manual_seed(0)
        self.pixels = torch.randint(0, 256, (count, 3, size, size), dtype=torch.uint8, generator=generator)
        self.labels = torch.arange(count) % 10
        self.columns = {}

    def images(self, index: Tensor) -> Tensor:
        return self.pixels.index_select(0, index)


class RandomSource(Source):
    """Random images in memory."""

    def __init__(self, count: int, size: int) -> None:
        self.class_names = tuple(map(str, range(10)))
        self.image_size = (size, size)
        self._train, self._test = RandomRows(count, size), RandomRows(1000, size)

    def train(self) -> Rows:
        return self._train

    def test(self) -> Rows:
        return self._test

    def fingerprint(self) -> str:
        return "random"


class WhitePatch(Trigger):
    """A white square in the corner."""

    def forward(self, images: Tensor, index: Tensor) -> Tensor:
        stamped = images.clone()
        stamped[:, :, :5, :5] = 1
        return stamped


def rate(run: Callable[[], int], repeats: int) -> float:
    """Give the best rows per second of some passes."""
    run()
    best = 0.0
    for _ in range(repeats):
        start = time.perf_counter()
        best = max(best, run() / (time.perf_counter() - start))
    return best


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=50_000)
    parser.add_argument("--size", type=int, default=32)
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--repeats", type=int, default=5)
    args = parser.parse_args()
    torch.set_num_threads(1)

    def module(augment: CropFlip | None) -> BackdoorDataModule:
        source, attack = RandomSource(args.rows, args.size), Attack(WhitePatch(), rate=0.1)
        return BackdoorDataModule(source, Split(root_pool=0), attack, augment, batch_size=args.batch_size)

    def pixels(batch: dict[str, Any]) -> dict[str, Any]:
        return batch

    plain, augmented = module(None), module(CropFlip(4))
    for name, data, finish in (
        ("loader alone (uint8)", plain, pixels),
        ("+ float and trigger", plain, lambda batch: plain.images(batch, training=True)),
        ("+ crop and flip", augmented, lambda batch: augmented.images(batch, training=True)),
    ):
        loader = data.loader("train")
        print(f"{name:24s}{rate(lambda: sum(len(finish(batch)['image']) for batch in loader), args.repeats):12,.0f} rows/s")  # noqa: B023
    data = plain.source.train()
    order = torch.randperm(args.rows).split(args.batch_size)
    print(f"{'bare index loop':24s}{rate(lambda: sum(len(data.images(index)) for index in order), args.repeats):12,.0f} rows/s")


if __name__ == "__main__":
    main()
