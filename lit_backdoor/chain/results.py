"""``results.json``: the stable record of a chain, written last and by rename."""

from __future__ import annotations

import contextlib
import json
import os
import platform
import resource
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import lightning
import torch
import torchvision

from lit_backdoor import __version__
from lit_backdoor.bundle import Bundle, json_ready
from lit_backdoor.chain.folders import write_whole
from lit_backdoor.chain.knowledge import knowledge_of
from lit_backdoor.data import BackdoorDataModule
from lit_backdoor.metrics import dem, der

__all__ = ["StageResult", "collect", "cost"]

FORMAT = 1
_SUMMED = ("acc", "acc_target", "asr", "ra")


@dataclass
class StageResult:
    """The result of one stage."""

    name: str
    class_path: str
    bundle: Bundle
    key: str
    status: str
    seconds: float
    inputs: dict[str, str]
    metrics: dict[str, Any] = field(default_factory=dict)
    made: dict[str, Any] = field(default_factory=dict)


def collect(
    chain: Mapping[str, Any], name: str, out: Path, data: BackdoorDataModule, stages: Sequence[StageResult]
) -> dict[str, Any]:
    """Write ``results.json`` in the chain's folder and give its contents."""
    counts = data.counts
    attack = data.attack
    results = {
        "format": FORMAT,
        "chain": name,
        "setup": chain.get("setup"),
        "attack": chain.get("attack"),
        "seed": chain["seed"],
        "data": {
            "source": chain["data"]["init_args"]["source"]["class_path"],
            "attack": type(attack.trigger).__name__ if attack else None,
            "policy": type(attack.policy).__name__ if attack else None,
            "target": attack.target if attack else None,
            "rate": attack.rate if attack else None,
            "rate_of": attack.rate_of if attack else None,
            "n_train": counts["train"],
            "n_root": counts["root"],
        },
        "model": _net(stages),
        "precision": (chain.get("trainer") or {}).get("precision", "32-true"),
        "counts": {"clean": counts["clean"], "triggered": counts["triggered"]},
        "versions": {
            "lit_backdoor": __version__,
            "torch": torch.__version__,
            "torchvision": torchvision.__version__,
            "lightning": lightning.__version__,
            "python": platform.python_version(),
        },
        "hardware": _hardware(),
        **knowledge_of(chain),
        "stages": [
            {
                "name": stage.name,
                "kind": stage.bundle.kind,
                "class_path": stage.class_path,
                "status": stage.status,
                "seconds": stage.seconds,
                "key": stage.key,
                "hash": stage.bundle.hash,
                "inputs": stage.inputs,
                "bundle": stage.name,
                "metrics": stage.metrics,
                "made": stage.made,
            }
            for stage in stages
        ],
        "summary": _summary(chain.get("summary") or {}, {stage.name: stage.metrics for stage in stages}),
    }
    results = dict(json_ready(results))
    write_whole(out / "results.json", json.dumps(results, indent=1, allow_nan=False) + "\n")
    return results


def cost(seconds: float, status: str) -> dict[str, Any]:
    """Say what making a bundle cost in this process, for ``made.json``.

    Args:
        seconds: How long it took.
        status: ``ran``, or ``resumed`` if an earlier run made a part of it, whose seconds are not counted.
    """
    peak = max(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return {
        "seconds": round(seconds, 2),
        "status": status,
        "peak_mb": round(peak / (1024 * (1024 if sys.platform == "darwin" else 1))),  # of the process so far
        "gpu_peak_mb": round(torch.cuda.max_memory_allocated() / 2**20) if torch.cuda.is_available() else None,
        "threads": torch.get_num_threads(),
        "hardware": _hardware(),
        "code": _code(),
        "versions": {"lit_backdoor": __version__, "torch": torch.__version__},
    }


def _net(stages: Sequence[StageResult]) -> str | None:
    """Name the first suspect's net: its architecture, or the class or function that makes it."""
    found = next((stage.bundle.info["model"] for stage in stages if stage.bundle.kind == "suspect"), None)
    if found is None:
        return None
    given = found.get("init_args") or {}
    return str(given.get("name") or given.get("factory") or found["class_path"]).rpartition(".")[2]


def _summary(summary: Mapping[str, Any], metrics: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    def row(role: str) -> dict[str, Any] | None:
        name = summary.get(role)
        return None if name is None else {key: metrics[name].get(key) for key in _SUMMED}

    before, after = row("before"), row("after")
    rates: dict[str, Any] = {"der": None, "dem": None}
    if before and after and None not in (before["acc"], before["asr"], after["acc"], after["asr"]):
        numbers = {
            f"{role}_{name}": row[name]
            for role, row in (("before", before), ("after", after))
            for name in ("asr", "acc")
        }
        rates = {"der": float(der(**numbers)), "dem": float(dem(**numbers))}
    names = {role: summary.get(role) for role in ("before", "after")}
    return {"before": before, "after": after, **rates, "stages": names}


def _hardware() -> str:
    if torch.cuda.is_available():
        return f"{torch.cuda.device_count()} x {torch.cuda.get_device_name()}"
    return f"{os.cpu_count()} CPU cores ({_processor() or platform.machine()})"


def _processor() -> str:
    """Name the processor's model, where the system says it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")


@cache
def _code() -> dict[str, Any]:
    """Say which code runs: version and, in a checkout, the commit and whether files differ from it."""
    folder = Path(__file__).parents[2]
    code: dict[str, Any] = {"version": __version__, "commit": None, "dirty": None}
    if (folder / ".git").exists():
        with contextlib.suppress(OSError, subprocess.CalledProcessError):
            code["commit"] = _git(folder, "rev-parse", "HEAD")
            code["dirty"] = bool(_git(folder, "status", "--porcelain", "--untracked-files=no"))
    return code


def _git(folder: Path, *words: str) -> str:
    found = subprocess.run(["git", "-C", folder, *words], check=True, capture_output=True, text=True)
    return found.stdout.strip()
