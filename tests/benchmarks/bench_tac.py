"""CPU seconds and memory of TAC's program for all classes, and of its right sides as all images give them.

python tests/benchmarks/bench_tac.py [--classes 200] [--width 512] [--images 10000] [--quantile 1.0] [--rounds 3]

Weights and latents are random, of a ResNet-18's shapes; the pass over the root set, which comes before, is not counted.
The right sides are also computed by a loop that compares all images of every two classes, in turn with ours, unless
``--only-ours`` is given; the two are equal to the bit.
"""

from __future__ import annotations

import argparse
import math
import resource
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor

from lit_backdoor.functional.minimal_perturbation import minimal_perturbations, required_gains


def by_hand(weight: Tensor, latents: Tensor, quantile: float) -> Tensor:
    """Compare all images of every two classes."""
    logits = weight.double() @ latents.double().T
    count = logits.shape[1]
    rank = min(count, max(1, math.ceil(quantile * count - 1e-9)))
    required = logits.new_zeros(len(weight), len(weight))
    for k in range(len(weight)):
        gaps = logits[k:] - logits[k]
        if rank == count:
            low, high = gaps.aminmax(dim=1)
        else:
            low, high = gaps.kthvalue(count + 1 - rank, 1).values, gaps.kthvalue(rank, 1).values
        required[k, k:], required[k:, k] = high, -low
    return required.fill_diagonal_(0)


def timed(seconds: list[float], work: Callable[[], Tensor]) -> Tensor:
    started = time.process_time()
    found = work()
    seconds.append(time.process_time() - started)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--classes", type=int, default=200)
    parser.add_argument("--width", type=int, default=512)
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--quantile", type=float, default=1.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only-ours", action="store_true", help="leave the loop over all images out")
    given = parser.parse_args()
    generator = torch.Generator().manual_seed(0)
    weight = 0.05 * torch.randn(given.classes, given.width, generator=generator)
    latents = torch.randn(given.images, given.width, generator=generator).relu()
    gains, program, hand = ([] for _ in range(3))
    for _ in range(given.rounds):
        required = timed(gains, lambda: required_gains(weight, None, latents, quantile=given.quantile))
        if not given.only_ours:
            compared = timed(hand, lambda: by_hand(weight, latents, given.quantile))
            assert torch.equal(required, compared), "the right sides differ"
        timed(program, lambda right=required: minimal_perturbations(weight, right))
    both, memory = (
        statistics.median(map(sum, zip(gains, program, strict=True))),
        resource.getrusage(resource.RUSAGE_SELF),
    )
    print(
        f"C={given.classes}, d={given.width}, n={given.images}, {torch.get_num_threads()} threads, CPU seconds, medians:"
    )
    print(
        f"  right sides {statistics.median(gains):.2f}, program {statistics.median(program):.2f}, together {both:.2f}"
    )
    if hand:
        ratios = [slow / quick for slow, quick in zip(hand, gains, strict=True)]
        print(f"  right sides by hand {statistics.median(hand):.2f}, {statistics.median(ratios):.1f} times as long")
    print(f"  peak memory {memory.ru_maxrss / 1e6:.2f} GB, libraries and inputs included")


if __name__ == "__main__":
    main()
