"""``lit-backdoor audit``: the command around `run_audit`, for people and for pipelines that gate on its exit code."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

import torch

from lit_backdoor.audit.run import run_audit
from lit_backdoor.chain.command import print_line, quiet
from lit_backdoor.disk import clean_name
from lit_backdoor.page.words import duration, percent

__all__ = ["audit_command", "seconds_of"]

_UNITS = {"s": 1, "m": 60, "h": 3600}
_BAD = {"suspicious": ("suspicious", "backdoored"), "backdoored": ("backdoored",)}


def audit_command(given: argparse.Namespace) -> int:
    """Audit the model that the command names; gives the exit code: 0, or 1 for a verdict that fails.

    Raises:
        ValueError: If no detector could say anything, something else ended the program, and as `run_audit` does.
    """
    try:
        return _audit(given)
    except SystemExit as stop:  # such as a module of the user's, whose exit code must not be taken for a verdict
        if isinstance(stop.__context__, KeyboardInterrupt):
            raise
        raise ValueError(f"Something ended the audit by exit code {stop.code}, so there is no verdict.") from stop


def _audit(given: argparse.Namespace) -> int:
    quiet()
    if given.threads is not None:
        most = os.cpu_count() or 1
        if not 1 <= given.threads <= most:  # far more end the program, by an exit code that would be a verdict
            raise ValueError(f"Expected --threads from 1 to {most}, the CPUs of this machine, got {given.threads}.")
        torch.set_num_threads(given.threads)
    out = given.out or Path("runs") / f"audit-{clean_name(Path(given.model).absolute().stem)}"
    audit = run_audit(
        given.model,
        given.data,
        out,
        budget=seconds_of(given.budget),
        seed=given.seed,
        arch=given.arch,
        classes=given.classes,
        size=given.size,
        mean=given.mean,
        std=given.std,
        split=given.split,
        part=given.part,
        trust=given.trust,
        say=print_line,
    )
    if audit["verdict"] is None:
        reasons = " ".join(f"{each['name']}: {each['reason']}" for each in audit["detectors"] if each["reason"])
        longer = " Give a larger --budget." if any(each["status"] == "left out" for each in audit["detectors"]) else ""
        raise ValueError(f"No detector could say anything, so there is no verdict.{longer} {reasons}")
    likely = "" if audit["probability"] is None else f", probability {percent(audit['probability'], 0)}"
    flagged = ", ".join(f"'{target['name']}' ({', '.join(target['detectors'])})" for target in audit["targets"])
    print_line(f"verdict  {audit['verdict']}{likely}; flagged: {flagged or 'no class'}; {duration(audit['seconds'])}")
    for warning in audit["calibration"]["warnings"]:
        print_line(warning)
    print_line(f"audit    {out / 'audit.json'}")
    print_line(f"page     {out / 'audit.html'}")
    return int(audit["verdict"] in _BAD[given.fail_on])


def seconds_of(text: str) -> float:
    """Read a budget: ``90s``, ``4m``, ``1h``, or seconds.

    Raises:
        ValueError: If it is none, or not above 0.
    """
    unit = _UNITS.get(text[-1:])
    try:
        seconds = float(text[:-1]) * unit if unit else float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < float("inf"):
        raise ValueError(f"Expected --budget such as 90s, 4m or 1h, got '{text}'.")
    return seconds
