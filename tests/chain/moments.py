"""Runs a chain in a process that kills itself at a given moment; stands alone so that a fork server can import it."""

import importlib
import os
import signal
from pathlib import Path


def run(file, out, moment, number):
    """Run a chain; at the ``number``-th call of the function named ``moment`` the process is killed."""
    from lit_backdoor.chain.compose import compose
    from lit_backdoor.chain.run import ChainRun

    if moment:
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
    ChainRun(compose(file), "tiny", Path(out), use_cache=False).run()


def _is_module(parts):
    try:
        importlib.import_module(".".join(parts))
    except ImportError:
        return False
    return True
