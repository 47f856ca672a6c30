"""Rows per second of the loader on one core: alone, finished without and with trigger and augmentation.

Run from the repository's root: ``OMP_NUM_THREADS=1 python tests/benchmarks/bench_loader.py``
"""

import argparse
import time
from collections.abc import Callable

import torch
from torch import Tensor

from lit_backdoor.data import BackdoorDataModule, CropFlip, Split, TensorSource
from lit_backdoor.triggers.base import Attack, Trigger


def random_source(count: int, size: int) -> TensorSource:
    """Random images in memory."""
    generator = torch.Generator().manual_seed(0)

    def part(rows: int) -> tuple[Tensor, Tensor]:
        return torch.randint(0, 256, (rows, 3, size, size), dtype=torch.uint8, generator=generator), torch.arange(
            rows
        ) % 10

    return TensorSource(part(count), part(1000))


class WhitePatch(Trigger):
    """A white square in the corner."""

    def forward(self, images: Tensor, index: Tensor) -> Tensor:
        stamped = images.clone()
        stamped[:, :, :5, :5] = 1
        return stamped


def best_rate(run: Callable[[], int], repeats: int) -> float:
    """Give the best rows per second of some passes, after one to warm up."""
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
    # As any training step does on the CPU: from then on, the allocator keeps blocks of a batch's size.
    torch.empty(5_000_000)

    source = random_source(args.rows, args.size)

    def module(augment: CropFlip | None) -> BackdoorDataModule:
        attack = Attack(WhitePatch(), rate=0.1)
        return BackdoorDataModule(source, Split(root_pool=0), attack, augment, batch_size=args.batch_size)

    def finished(data: BackdoorDataModule) -> int:
        return sum(len(data.images(batch, training=True)["image"]) for batch in data.loader("train"))

    plain, augmented = module(None), module(CropFlip(4))
    rows, order = source.train(), torch.randperm(args.rows).split(args.batch_size)
    passes: dict[str, Callable[[], int]] = {
        "bare index loop": lambda: sum(len(rows.images(index)) for index in order),
        "loader alone (uint8)": lambda: sum(len(batch["image"]) for batch in plain.loader("train")),
        "+ float and trigger": lambda: finished(plain),
        "+ crop and flip": lambda: finished(augmented),
    }
    for name, run in passes.items():
        print(f"{name:24s}{best_rate(run, args.repeats):12,.0f} rows/s")


if __name__ == "__main__":
    main()
