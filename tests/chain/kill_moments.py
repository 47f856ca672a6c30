"""Ends a chain at random moments, with and without loader workers; its end must be that of a run untouched.

Not one of pytest's tests: it takes minutes. From the repository's root ``python tests/chain/kill_moments.py 40`` ends 40
starts of the tiny chain, half of them with workers, by SIGKILL, SIGTERM, SIGINT or SIGHUP to the whole group; fewer
where a smaller number is given. Libraries are imported once, by a fork server. A chain that came to its end is compared,
and the next start begins a new one. It exits with 1 if a start does not go on, leaves a process or a half-written bundle
behind, or comes to another end.
"""

import contextlib
import fcntl
import json
import multiprocessing
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

sys.path += [str(Path(__file__).parent), str(Path(__file__).parents[1])]
import moments
import tiny
from test_signals import WORKERS, running

SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
MODULES = ["lit_backdoor.cli", "lit_backdoor.chain.command", "lit_backdoor.lightning_cli", "lit_backdoor.chain.testing"]


def new_folder():
    folder = Path(tempfile.mkdtemp()).resolve()
    tiny.write_chain(folder / "tiny.yaml")
    return folder


def start(context, folder, settings):
    """Start the chain in a process of the fork server."""
    words = ["chain", "tiny.yaml", "--out", "out", "--no-cache", "--no-report"]
    words += [word for text in settings for word in ("--set", text)]
    variables = {"LIT_BACKDOOR_CACHE": str(folder / "cache"), "OMP_NUM_THREADS": "1"}
    process = context.Process(target=moments.listening, args=(words, str(folder), variables))
    process.start()
    while process.is_alive() and os.getpgid(process.pid) != process.pid:
        time.sleep(0.005)
    return process


def lasting(folder):
    """The hashes of a finished chain's bundles."""
    return [stage["hash"] for stage in json.loads((folder / "out" / "results.json").read_text())["stages"]]


def finish(context, folder, settings):
    """Let a chain come to its end; gives its hashes and the seconds that it took."""
    process, since = start(context, folder, settings), time.monotonic()
    process.join()
    assert process.exitcode == 0, (folder / "said").read_text()
    left = [path for path in (folder / "out").rglob("*") if path.suffix in (".part", ".old")]
    assert not left, f"left behind: {left}"
    return lasting(folder), time.monotonic() - since


def end(process, folder, number):
    """End a start by a signal to its group, and check what is left of it; gives its exit code."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, number)
    process.join(40)
    code, since = process.exitcode, time.monotonic()
    while running(folder) and time.monotonic() < since + 30:
        time.sleep(0.1)
    assert not running(folder), f"left running after {number.name}"
    assert code in (0, -number, 128 + number), f"{code} after {number.name}: {(folder / 'said').read_text()}"
    if (folder / "out" / ".lock").exists():
        with (folder / "out" / ".lock").open("r+") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    return code


def main(count):
    os.environ["OMP_NUM_THREADS"] = "1"
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(MODULES)
    wanted, length = finish(context, new_folder(), [])
    print(f"untouched: {length:.0f} s", flush=True)
    draw, folder, seen, chains = random.Random(count), new_folder(), Counter(), 1
    for moment in range(count):
        settings, number = WORKERS if moment % 2 else [], draw.choice(SIGNALS)
        process = start(context, folder, settings)
        time.sleep(draw.uniform(0, length))
        code = end(process, folder, number)
        seen[number.name, code] += 1
        print(f"{moment + 1}: {number.name} {'with workers' if settings else ''} {code}", flush=True)
        if code == 0:
            assert lasting(folder) == wanted, "the end is another one"
            folder, chains = new_folder(), chains + 1
    assert finish(context, folder, WORKERS)[0] == wanted, "the end is another one"
    counts = ", ".join(f"{name} to {code}: {times}" for (name, code), times in sorted(seen.items()))
    print(f"{chains} chains went on to equal ends; {counts}")


if __name__ == "__main__":
    main(int(sys.argv[1]) if sys.argv[1:] else 40)
