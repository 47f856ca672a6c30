"""Kills and signals a chain at 40 moments, with and without loader workers, and compares the end with a run untouched.

Not a test of pytest's: it takes half an hour. From the repository's root, ``python tests/chain/kill_moments.py``, or with
another number of moments behind it. It exits with 1 where a start does not go on, or the end is another one.
"""

import fcntl
import json
import os
import random
import signal
import sys
import tempfile
import time
from pathlib import Path

sys.path += [str(Path(__file__).parent), str(Path(__file__).parents[1])]
import tiny
from test_signals import WORKERS, running, started

SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


def lasting(folder):
    """The hashes of a finished chain's bundles."""
    return [stage["hash"] for stage in json.loads((folder / "out" / "results.json").read_text())["stages"]]


def command(folder, settings):
    file = tiny.write_chain(folder / "tiny.yaml")
    return ["chain", file, "--out", "out", "--no-cache", *(word for text in settings for word in ("--set", text))]


def untouched(settings):
    """Run a chain to its end; gives its hashes and the seconds it took."""
    folder = Path(tempfile.mkdtemp()).resolve()
    since = time.monotonic()
    process = started(command(folder, settings), folder)
    assert process.wait() == 0, (folder / "said").read_text()
    return lasting(folder), time.monotonic() - since


def interrupted(settings, moments, seconds, draw):
    """End a chain at random moments, start it again each time, and let the last one through."""
    folder = Path(tempfile.mkdtemp()).resolve()
    for _ in range(moments):
        process, number = started(command(folder, settings), folder), draw.choice(SIGNALS)
        time.sleep(draw.uniform(0, seconds))
        if process.poll() is None:
            os.killpg(process.pid, number)
        code, since = process.wait(40), time.monotonic()
        while running(folder) and time.monotonic() < since + 30:
            time.sleep(0.1)
        assert not running(folder), f"left running after {number.name}"
        assert code in (0, -number, 128 + number), f"{code} after {number.name}: {(folder / 'said').read_text()}"
        if (folder / "out" / ".lock").exists():
            with (folder / "out" / ".lock").open("r+") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        print(f"{number.name}: {code}", flush=True)
    assert started(command(folder, settings), folder).wait() == 0, (folder / "said").read_text()
    left = [path for path in (folder / "out").rglob("*") if path.suffix in (".part", ".old")]
    assert not left, f"left behind: {left}"
    return lasting(folder)


if __name__ == "__main__":
    count = int(sys.argv[1]) if sys.argv[1:] else 40
    for given in ([], WORKERS):
        wanted, length = untouched(given)
        assert interrupted(given, (count + 1) // 2, length, random.Random(count)) == wanted, "the end is another one"
    print("every start went on, and the ends are equal")
