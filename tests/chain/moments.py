"""Runs chains, grids and commands in a process that ends at a given moment; stands alone so that a fork server can
import it."""

import importlib
import os
import signal
import sys
import time
from pathlib import Path


def run(file, out, moment, number):
    """Run a chain; at the ``number``-th call of the function named ``moment`` the process is killed."""
    from lit_backdoor.chain.compose import compose
    from lit_backdoor.chain.run import ChainRun

    if moment:
        kill_at(moment, number)
    ChainRun(compose(file), "tiny", Path(out), use_cache=False).run()


def grid(file, out, store, moment=None, number=1, waits_for=None):
    """Run a grid whose commands run in this process.

    Args:
        file: The grid.
        out: Its folder.
        store: The store.
        moment: At the ``number``-th call of the function of this name the process is killed.
        number: See there.
        waits_for: Folder of another grid; the victim is trained once its log says that it waits for it.
    """
    os.environ["LIT_BACKDOOR_CACHE"] = store
    from grid_parts import Here

    from lit_backdoor.chain.grid import command

    command._engine = lambda name, address: Here()
    if moment:
        kill_at(moment, number)
    if waits_for:
        _wait_in_training(Path(waits_for))
    command.run_grid(file, out=out)


def listening(words, folder, variables):
    """Run a command as a process of its own would, in a group of its own; what it says goes to a file."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    os.chdir(folder)
    os.environ.update(variables)
    said = os.open("said", os.O_CREAT | os.O_WRONLY | os.O_TRUNC)
    os.dup2(said, 1), os.dup2(said, 2)
    sys.argv = ["lit-backdoor", *words]
    os.setsid()
    from lit_backdoor.cli import main

    sys.exit(main())


def kill_at(moment, number):
    """Have this process killed at the ``number``-th call of the function named ``moment``."""
    *parts, last = moment.split(".")
    length = next(n for n in range(len(parts), 0, -1) if _is_module(parts[:n]))
    owner = importlib.import_module(".".join(parts[:length]))
    for part in parts[length:]:
        owner = getattr(owner, part)
    original, calls = getattr(owner, last), []

    def deadly(*args, **kwargs):
        calls.append(1)
        if len(calls) == number:
            os.kill(os.getpid(), signal.SIGKILL)
        return original(*args, **kwargs)

    setattr(owner, last, deadly)


def _wait_in_training(other):
    from lit_backdoor.stages import PoisonedTraining

    original, deadline = PoisonedTraining.training_step, time.monotonic() + 240

    def patient(*args):
        while not any("waiting for it" in log.read_text() for log in other.glob("logs/*")):
            assert time.monotonic() < deadline, "nobody came to wait"
            time.sleep(0.05)
        return original(*args)

    PoisonedTraining.training_step = patient


def _is_module(parts):
    try:
        importlib.import_module(".".join(parts))
    except ImportError:
        return False
    return True
