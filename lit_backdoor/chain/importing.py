"""``lit-backdoor import``: somebody else's model becomes a suspect's bundle."""

from __future__ import annotations

import argparse
import json
import warnings
from pathlib import Path
from typing import Any

from lit_backdoor.bundle import Bundle, open_bundle, save_bundle
from lit_backdoor.chain.command import print_line
from lit_backdoor.models import Classifier, load_classifier
from lit_backdoor.recipe import trusting

__all__ = ["read_json", "read_names", "run_import"]


def run_import(given: argparse.Namespace) -> int:
    """Load the model that the command names, say what was guessed, and write its bundle."""
    classes, names = read_names(given.classes)
    _check_free(Path(given.out))
    with warnings.catch_warnings(record=True) as said, trusting(given.trust):
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
        bundle = _save(classifier, Path(given.model), given.out, names)
    for warning in said:
        print_line(str(warning.message))
    print_line(f"Wrote the suspect, of {classifier.num_classes} classes, to {bundle.path}.")
    return 0


def _check_free(out: Path) -> None:
    """Check that no stage's bundle is lost, which `save_bundle` would replace; one of an earlier import may be."""
    if (out / "bundle.json").is_file() and open_bundle(out).info["key"] is not None:
        raise FileExistsError(
            f"Expected no bundle of a stage at '{out}', which would be lost. Remove it, or give another --out."
        )


def _save(classifier: Classifier, model: Path, out: Path, names: list[str]) -> Bundle:
    """Write the suspect; of a bundle its attack and its class names go along."""
    attack = None
    if (model / "bundle.json").is_file():
        old = open_bundle(model, "suspect")
        names, attack = names or old.info.get("class_names") or [], old.attack()
    meta = {"class_names": names} if names else None
    return save_bundle(out, kind="suspect", module=classifier, attack=attack, meta=meta)


def read_names(given: str | None) -> tuple[int | None, list[str]]:
    """Read ``--classes``: a number, or a file with the name of one class on each line, or a JSON list of names.

    Returns:
        The number of classes where it is said, and their names in order.

    Raises:
        ValueError: If there is no such file, it is no text or empty, or a name stands twice in it.
    """
    if given is None or given.isdecimal():
        return None if given is None else int(given), []
    if not Path(given).is_file():
        raise ValueError(f"Expected --classes as a number or a file with a name on each line, got '{given}'.")
    if given.endswith(".json"):
        names = read_json(given)
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise ValueError(f"Expected a list of names in the order of the outputs in {given}, got {names!r:.200}.")
    else:
        try:
            names = [line.strip() for line in Path(given).read_text(encoding="utf-8-sig").splitlines() if line.strip()]
        except UnicodeDecodeError as error:
            raise ValueError(f"Expected a text file with a name on each line, got {given} ({error}).") from error
    if not names:
        raise ValueError(f"Expected a name on each line of {given}, got none.")
    if twice := next((name for number, name in enumerate(names) if name in names[:number]), None):
        raise ValueError(
            f"Expected different names in {given}, got '{twice}' twice. Tell them apart, such as '{twice} 2'."
        )
    return len(names), names


def read_json(file: str) -> Any:
    """Read a JSON file.

    Raises:
        ValueError: If it is none.
    """
    try:
        return json.loads(Path(file).read_text(encoding="utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"Expected JSON in {file}: {error}.") from error
