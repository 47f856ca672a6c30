"""What the run was made with, and how to repeat it."""

# ruff: noqa: RUF001  (typographic signs are meant)

from __future__ import annotations

from lit_backdoor.page.words import DASH, call, count, percent, short
from lit_backdoor.recipe import Recorded, recipe
from lit_backdoor.report.run import Run
from lit_backdoor.report.template import Section, render
from lit_backdoor.triggers import AllToAll

__all__ = ["settings"]


def settings(run: Run) -> Section:
    """Show attack, data, models, versions, hardware, and the command."""
    results = run.results
    groups = [("Attack", _attack(run)), ("Data", _data(run)), ("Models", _models(run))]
    versions = [(name, version) for name, version in results["versions"].items()]
    groups.append(("Made with", [*versions, ("hardware", results["hardware"]), ("seed", str(results["seed"]))]))
    shown = [(title, pairs) for title, pairs in groups if pairs]
    return Section("settings", "Settings", render("settings.html", groups=shown, command=run.command))


def _attack(run: Run) -> list[tuple[str, str]]:
    attack = run.data.attack
    if attack is None:
        return [("attack", "none")]
    targeted = not isinstance(attack.policy, AllToAll)
    of = {"set": "the questioned set", "target": "the target class", "carriers": "the pictures that carry it"}[
        attack.rate_of
    ]
    pairs = [
        ("trigger", call(_recipe(attack.trigger))),
        ("labels", call(_recipe(attack.policy))),
        ("target", f"{attack.target}, “{run.class_name(attack.target)}”" if targeted else "each class the next"),
        ("poisoning rate", f"{percent(attack.rate)} of {of}"),
    ]
    covers = [("cover rate", f"{percent(attack.cover_rate)} of {of}")] if attack.cover_rate else []
    return pairs + covers


def _recipe(value: Recorded) -> object:
    try:
        return recipe(value)
    except ValueError:  # an argument was an object; its name has to do
        return type(value).__name__


def _data(run: Run) -> list[tuple[str, str]]:
    data, counts = run.results["data"], run.results["counts"]
    height, width = run.data.image_size
    return [
        ("source", short(data["source"])),
        ("classes", count(run.data.num_classes)),
        ("image size", f"{width} × {height}"),
        ("questioned images", count(data["n_train"])),
        ("clean images held", count(data["n_root"])),
        ("clean test images", count(counts["clean"])),
        ("triggered test images", count(counts["triggered"] or None)),
    ]


def _models(run: Run) -> list[tuple[str, str]]:
    """Give the nets that the stages left, each once."""
    pairs: dict[str, str] = {}
    for stage in run.stages:
        bundle = run.bundle(stage)
        if bundle is not None and bundle.info["model"] is not None:
            text = call(bundle.info["model"])
            if text not in pairs.values():
                pairs[stage["name"]] = text
    return list(pairs.items()) or [("nets", DASH)]
