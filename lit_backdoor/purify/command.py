"""``lit-backdoor purify``: run it, and say what changed."""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Mapping
from typing import Any

from lit_backdoor.audit.command import seconds_of
from lit_backdoor.chain.command import print_line, quiet
from lit_backdoor.purify.run import purify

__all__ = ["purify_command"]

_SHOWN = 3
_LOST = 0.05  # ACC on the target class, beyond the loss on all classes, that is worth a word


def purify_command(given: argparse.Namespace) -> int:
    """Run the purification that the command line asks for; gives the exit code."""
    quiet()
    options = {key: getattr(given, key) for key in ("arch", "classes", "size", "mean", "std", "split", "part")}

    def show(message: Warning | str, *args: Any, **kwargs: Any) -> None:
        print_line(str(message))

    with warnings.catch_warnings():
        warnings.showwarning = show
        report = purify(
            given.model,
            given.data,
            given.out,
            defense=given.defense,
            target=given.target,
            settings=given.settings,
            seed=given.seed,
            budget=seconds_of(given.budget),
            trust=given.trust,
            say=print_line,
            **options,
        )
    for line in _lines(report, f"{given.out}.purify"):
        print_line(line)
    return 0


def _lines(report: Mapping[str, Any], work: str) -> list[str]:
    before, after, written = report["before"], report["after"], report["written"]
    held = f"{report['data']['held_out']} held-out images"
    if after is None:
        return [
            f"ACC {before['acc']:.3f} on {held}.",
            f"The suspect stays as it is: {report['why']}. To clean it all the same, name a defense, such as --with "
            f"pgbd_nt_stamps. Nothing but {work} was written.",
        ]
    lines = [f"ACC {before['acc']:.3f} before, {after['acc']:.3f} after, on {held}."]
    lines += _of_target(report)
    if report["audit_after"] is not None:
        lines.append(f"Audit: {report['audit']['verdict']} before, {report['audit_after']['verdict']} after.")
    if written["left"]:
        more = f" and {len(written['left']) - _SHOWN} more" if len(written["left"]) > _SHOWN else ""
        lines.append(
            f"Other weights in the file stayed as they were, and may carry the backdoor: "
            f"{', '.join(written['left'][:_SHOWN])}{more}."
        )
    if written["adds"]:
        lines.append(
            f"The defense adds a module ({written['adds']}), which a file of the suspect's form cannot hold: "
            f"{written['path']} is a bundle. Load it by lit_backdoor.models.load_classifier."
        )
    return [*lines, f"Wrote the cleaned model to {written['path']}, and how it came about to {work}/purify.json."]


def _of_target(report: Mapping[str, Any]) -> list[str]:
    """Say if the target class was given up, which ACC over all classes may hide."""
    before, after = report["before"], report["after"]
    if before["acc_target"] is None or after["acc_target"] is None:
        return []
    name, lost = report["target"]["name"], before["acc_target"] - after["acc_target"]
    line = f"ACC on the target class '{name}' {before['acc_target']:.3f} before, {after['acc_target']:.3f} after"
    given_up = lost > before["acc"] - after["acc"] + _LOST
    return [f"{line}{': it was given up in part. More images of it would help.' if given_up else '.'}"]
