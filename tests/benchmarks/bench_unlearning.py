"""How much longer a batch takes of which a share is generated if all of it is generated first.

python tests/benchmarks/bench_unlearning.py [--share 0.1] [--batch-size 128] [--channels 16] [--rounds 7]

The steps of `BTIDBFPartialUnlearning` on random images of 32 x 32 pixels, with a U-Net as generator; both forms run in
turn on the same draws, and their losses are compared. CPU seconds.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from lit_backdoor.functional.decoupling import error, replace_share
from lit_backdoor.models import TimmClassifier, UNet


def whole(images: Tensor, generator: Callable[[Tensor], Tensor], share: float) -> Tensor:
    """Generate every image, and keep the rows that are drawn."""
    generated = generator(images)
    rows = torch.randperm(len(images))[: min(len(images), int(share * len(images) + 1))]
    return images.index_copy(0, rows, generated[rows])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--share", type=float, default=0.1)
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--channels", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=7)
    given = parser.parse_args()
    torch.manual_seed(0)
    net = TimmClassifier("resnet18", 10, 32, channels=given.channels).eval()
    generator, labels = UNet(attention="none", start="random"), torch.arange(given.batch_size) % 10

    def step(replace: Callable[..., Tensor], seed: int) -> tuple[float, float]:
        torch.manual_seed(seed)
        images = torch.rand(given.batch_size, 3, 32, 32)
        started = time.process_time()
        with torch.no_grad():
            mixed = replace(images, generator, given.share)
        clean, changed = net.features(torch.cat((images, mixed))).chunk(2)
        loss = F.cross_entropy(net.head(changed), labels) + error(clean, changed)
        loss.backward()
        net.zero_grad()
        return time.process_time() - started, float(loss.detach())

    for replace in (whole, replace_share):
        step(replace, 0)
    ratios, apart = [], 0.0
    for number in range(given.rounds):
        (slow, one), (quick, two) = step(whole, number), step(replace_share, number)
        ratios.append(slow / quick)
        apart = max(apart, abs(one - two) / abs(one))
    print(f"all generated over a share of {given.share}: {statistics.median(ratios):.2f} times as long, median of "
          f"{given.rounds}; losses differ by {apart:.1e}")  # fmt: skip


if __name__ == "__main__":
    main()
