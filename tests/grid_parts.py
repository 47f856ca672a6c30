"""A grid so small that its cells take a second: drawn signs, one epoch, plain fine-tunes as defenses."""

import json
import time
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import tiny
import torch
import yaml

from lit_backdoor.bundle import save_bundle
from lit_backdoor.chain.engines.task import Ended
from lit_backdoor.chain.grid.cells import read_grid
from lit_backdoor.chain.grid.graph import connect
from lit_backdoor.cli import main

EXACT = {**tiny.QUIET, "precision": "32-true"}


def write_grid(folder, **changes):
    """Write a setup, three defenses and a grid of 2 attacks x 3 defenses x 2 seeds; gives the grid's file."""
    chain = tiny.chain()
    victim = {**chain["stages"]["victim"], "trainer": {"max_epochs": 1}}
    _write(
        folder / "mini.yaml", data=chain["data"], trainer=EXACT, stages={"victim": victim}, summary={"before": "victim"}
    )
    for number in range(3):
        clean = {
            "model": {"class_path": "lit_backdoor.stages.FineTune"},
            "inputs": {"model.suspect": "victim"},
            "trainer": {"max_epochs": 1 + number},
        }
        _write(folder / f"tune{number}.yaml", stages={"clean": clean}, summary={"after": "clean"})
    grid = {
        "setups": [str(folder / "mini.yaml")],
        "attacks": ["badnets_3x3", "blend"],
        "defenses": [str(folder / f"tune{number}.yaml") for number in range(3)],
        "seeds": [0, 1],
        "resources": {"default": {"cpus": 1}},
    }
    return _write(folder / "grid.yaml", **{**grid, **changes})


def _write(file, **content):
    file.write_text(yaml.safe_dump({"format": 1, **content}, sort_keys=False))
    return str(file)


def nodes_of(file):
    return connect(read_grid(file).cells)


def gone(pid, seconds=10):
    """Say whether a process ends in time; one that nobody has waited for has ended, too."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                return True
        except OSError:
            return True
        time.sleep(0.1)
    return False


class Here:
    """Runs each command in this process, which has all libraries loaded."""

    slots = 1

    def __init__(self):
        self.ran = []

    def start(self, task):
        self.task = task

    def wait(self):
        self.ran.append(self.task.name)
        self.task.log.parent.mkdir(parents=True, exist_ok=True)
        with self.task.log.open("a") as log, redirect_stdout(log), redirect_stderr(log):
            return Ended(self.task.name, main(list(self.task.words)))

    def stop(self):
        pass


class Pretend:
    """Writes bundles that look as if stages had made them; fails where it is told to."""

    slots = None

    def __init__(self, nodes, out, store, failing=(), code=1):
        self.nodes = {node.name: node for node in nodes}
        self.out, self.store, self.failing, self.code = out, store, failing, code
        self.ran, self.running, self.most = [], [], 0

    def start(self, task):
        self.ran.append(task.name)
        self.running.append(task)
        self.most = max(self.most, len(self.running))

    def wait(self):
        task = self.running.pop(0)
        if task.name in self.failing:
            task.log.parent.mkdir(parents=True, exist_ok=True)
            task.log.write_text("lit-backdoor: Expected more.\n")
            return Ended(task.name, self.code, "its worker was lost")
        self.make(self.nodes[task.name])
        return Ended(task.name, 0)

    def make(self, node):
        stages = []
        for stage in node.makes:
            key = f"key-{node.stages[stage]}"
            save_bundle(self.store.bundle(key), kind="selection", tensors={"indices": torch.arange(3)}, key=key)
            self.store.note(node.stages[stage], key)
        if node.stage is None:
            folder = node.folder(self.out)
            for stage, identity in node.stages.items():
                key = f"key-{identity}"
                save_bundle(folder / stage, kind="selection", tensors={"indices": torch.arange(3)}, key=key)
                stages.append({"name": stage, "bundle": stage, "key": key})
            (folder / "results.json").write_text(json.dumps({"stages": stages}))

    def stop(self):
        pass
