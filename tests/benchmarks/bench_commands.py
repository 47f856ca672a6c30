"""Wall time and peak memory of commands: --help, fit --help and the demo.

python tests/benchmarks/bench_commands.py [--demo]
"""

from __future__ import annotations

import argparse
import resource
import statistics
import subprocess
import sys
import tempfile
import time


def measure(arguments: list[str], runs: int) -> tuple[float, float]:
    """Give the median seconds and the largest process's peak memory so far, in GB."""
    seconds = []
    for _ in range(runs):
        started = time.perf_counter()
        subprocess.run([sys.executable, "-m", "lit_backdoor", *arguments], check=True, stdout=subprocess.DEVNULL)
        seconds.append(time.perf_counter() - started)
    return statistics.median(seconds), resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--demo", action="store_true", help="run the demo as well, which takes minutes")
    given = parser.parse_args()
    commands = [(["--help"], 5), (["fit", "--help"], 3)]
    with tempfile.TemporaryDirectory() as folder:
        if given.demo:
            commands.append((["demo", "--out", folder], 1))
        for arguments, runs in commands:
            seconds, memory = measure(arguments, runs)
            print(f"lit-backdoor {' '.join(arguments[:2])}: {seconds:.2f} s (median of {runs}), peak {memory:.2f} GB", flush=True)


if __name__ == "__main__":
    main()
