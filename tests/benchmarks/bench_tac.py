"""Seconds of TAC's program for all classes, and of its reference for one.

python tests/benchmarks/bench_tac.py [--classes 200] [--width 512] [--images 10000] [--rounds 3]

Weights and latents are random, of a ResNet-18's shapes; the pass over the root set, which comes before, is not counted.
"""

from __future__ import annotations

import argparse
import statistics
import time

import torch

from lit_backdoor.functional.minimal_perturbation import minimal_perturbations, perturbation_by_nnls, required_gains


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--classes", type=int, default=200)
    parser.add_argument("--width", type=int, default=512)
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--quantile", type=float, default=1.0)
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    generator = torch.Generator().manual_seed(0)
    weight = 0.05 * torch.randn(given.classes, given.width, generator=generator)
    latents = torch.randn(given.images, given.width, generator=generator).relu()
    seconds: dict[str, list[float]] = {"gains": [], "program": [], "reference": []}
    for _ in range(given.rounds):
        moments = [time.perf_counter()]
        required = required_gains(weight, None, latents, quantile=given.quantile)
        moments.append(time.perf_counter())
        found = minimal_perturbations(weight, required)
        moments.append(time.perf_counter())
        reference = perturbation_by_nnls(weight, required, 0)
        moments.append(time.perf_counter())
        for name, start, end in zip(seconds, moments, moments[1:], strict=False):
            seconds[name].append(end - start)
    apart = float((found[0] - reference).norm() / reference.norm())
    gains, program, one = (statistics.median(taken) for taken in seconds.values())
    print(f"C={given.classes}, d={given.width}, n={given.images}, {torch.get_num_threads()} threads, median of rounds:")
    print(f"  right sides {gains:.2f} s, program {program:.2f} s, together {gains + program:.2f} s")
    print(f"  reference by NNLS {one:.3f} s for one class, which is {apart:.1e} away")


if __name__ == "__main__":
    main()
