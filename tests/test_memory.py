"""What a process frees stays with it: the next large tensor costs no page faults."""

import os
import platform
import subprocess
import sys

import pytest

PROGRAM = """
import resource, sys
from lit_backdoor.memory import keep_memory
done = keep_memory() if sys.argv[1] == "keep" else False
import torch
faults = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_minflt
make = lambda: torch.ones(16 * 2**20)
for _ in range(12):  # until the heap is as large as it gets
    make()
before = faults()
for _ in range(4):
    make()
print(done, faults() - before)
"""

ENVIRONMENT = {name: value for name, value in os.environ.items() if not name.startswith(("MALLOC_", "GLIBC_"))}


def run(what, **environment):
    command = [sys.executable, "-c", PROGRAM, what]
    out = subprocess.run(command, capture_output=True, text=True, check=True, env={**ENVIRONMENT, **environment}).stdout
    done, faults = out.split()
    return done == "True", int(faults)


@pytest.mark.slow
@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another libc")
def test_memory_is_kept():
    done, faults = run("keep")
    assert done
    assert 20 * faults < run("leave")[1]


def test_the_environment_comes_first():
    assert run("keep", MALLOC_ARENA_MAX_="2") == (False, pytest.approx(run("leave", MALLOC_ARENA_MAX_="2")[1], rel=0.5))
