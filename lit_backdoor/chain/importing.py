"""``lit-backdoor import``: somebody else's model becomes a suspect's bundle."""

from __future__ import annotations

import argparse
import sys
import warnings
from pathlib import Path

from lit_backdoor.bundle import save_bundle
from lit_backdoor.models import load_classifier

__all__ = ["read_names", "run_import"]


def run_import(given: argparse.Namespace) -> int:
    """Load the model that the command names, say what was guessed, and write its bundle."""
    classes, names = read_names(given.classes)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always", UserWarning)
        classifier = load_classifier(
            given.model,
            given.arch,
            classes=classes,
            size=given.size,
            mean=given.mean,
            std=given.std,
            split=given.split,
            part=given.part,
        )
    for warning in said:
        sys.stdout.write(f"{warning.message}\n")
    bundle = save_bundle(given.out, kind="suspect", module=classifier, meta={"class_names": names} if names else None)
    sys.stdout.write(f"Wrote the suspect, of {classifier.num_classes} classes, to {bundle.path}.\n")
    return 0


def read_names(given: str | None) -> tuple[int | None, list[str]]:
    """Read ``--classes``: a number, or a file with the name of one class on each line.

    Returns:
        The number of classes where it is said, and their names in order.

    Raises:
        ValueError: If there is no such file, or a name stands twice in it.
    """
    if given is None or given.isdigit():
        return None if given is None else int(given), []
    if not Path(given).is_file():
        raise ValueError(f"Expected --classes as a number or a file with a name on each line, got '{given}'.")
    names = [line.strip() for line in Path(given).read_text().splitlines() if line.strip()]
    if len(set(names)) < len(names):
        raise ValueError(f"Expected different names in {given}, got some twice.")
    return len(names), names
