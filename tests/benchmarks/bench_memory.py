"""Milliseconds of a training step on the CPU where glibc returns freed memory, and where the process keeps it.

python tests/benchmarks/bench_memory.py [--rounds 3] [--steps 15] [--width 32] [--batch-size 128]

Both forms run in turn, each in a process of its own on one thread: forward and backward of a 3x3 convolution of
``width`` channels on 32x32 images, in bf16. The median ratio is what to quote.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import time

import torch
from torch import nn

from lit_backdoor.memory import keep_memory


def step_time(width: int, batch_size: int, steps: int) -> float:
    """Give the median milliseconds of a step, after a few to warm up."""
    torch.set_num_threads(1)
    net = nn.Conv2d(width, width, 3, padding=1)
    images, times = torch.rand(batch_size, width, 32, 32), []
    for _ in range(steps + 5):
        start = time.perf_counter()
        with torch.autocast("cpu", torch.bfloat16):
            net(images).relu().float().square().mean().backward()
        times.append(1000 * (time.perf_counter() - start))
    return statistics.median(times[5:])


def main() -> None:
    """Measure in turn, or once where a child is asked to."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, value in (("rounds", 3), ("steps", 15), ("width", 32), ("batch-size", 128)):
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--child", choices=("returned", "kept"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.child:
        if given.child == "kept" and not keep_memory():
            raise SystemExit("The libc is not glibc, or the environment has settings of malloc: nothing to compare.")
        print(step_time(given.width, given.batch_size, given.steps))
        return
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("MALLOC_", "GLIBC_"))}
    ratios = []
    for _ in range(given.rounds):
        taken = {}
        for form in ("returned", "kept"):
            command = [sys.executable, __file__, *sys.argv[1:], "--child", form]
            out = subprocess.run(command, capture_output=True, text=True, check=True, env=environment).stdout
            taken[form] = float(out)
        ratios.append(taken["kept"] / taken["returned"])
        print(f"returned {taken['returned']:.0f} ms, kept {taken['kept']:.0f} ms, ratio {ratios[-1]:.2f}", flush=True)
    print(f"median ratio {statistics.median(ratios):.2f}")


if __name__ == "__main__":
    main()
