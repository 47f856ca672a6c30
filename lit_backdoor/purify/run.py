"""The whole of it: read, audit, choose, clean, write back, measure."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from lit_backdoor import __version__
from lit_backdoor.audit.sources import Data, check_apart
from lit_backdoor.bundle import json_ready
from lit_backdoor.chain.folders import write_whole
from lit_backdoor.disk import check_claim, claim
from lit_backdoor.errors import check_seed
from lit_backdoor.purify.chain import check_defense
from lit_backdoor.purify.choice import AUTO, Choice, choose, find_class
from lit_backdoor.purify.job import Job, options_for, read_job
from lit_backdoor.recipe import trusting
from lit_backdoor.weights import is_safetensors

__all__ = ["purify"]

FORMAT = 1
_FOUND = ("verdict", "probability", "targets")


def purify(
    model: str | Path,
    data: Data,
    out: str | Path,
    *,
    defense: str = AUTO,
    target: str | int | None = None,
    settings: Iterable[str] = (),
    seed: int = 0,
    budget: float = 240.0,
    trust: Iterable[str] = (),
    say: Callable[[str], None] = lambda line: None,
    **options: Any,
) -> dict[str, Any]:
    """Clean a model from outside by a defense that needs only clean images, and write it back as it came.

    Where only weights change, format, names, nesting and types stay, so that the code that loads the model loads the
    result. Where the defense adds a module the result is a bundle. The folder beside it, ``OUT.purify``, holds
    ``purify.json``, the chain and the audits; a run that was stopped goes on from there.

    Args:
        model: The suspect, as `load_classifier` takes it.
        data: Clean images of the model's classes, as an audit takes them; a quarter is held out to measure.
        out: The file or folder to write; nothing may be there.
        defense: A shipped defense or a file; ``auto`` lets an audit choose, and leaves the suspect as it is if that
            finds nothing.
        target: The attacker's class, by name or number, for a defense that takes one.
        settings: ``a.b.c=value`` texts that change the defense's chain.
        seed: Seed of the chain and of what is held out.
        budget: Seconds for each audit.
        trust: Packages and modules whose classes bundles may name.
        say: Prints one line.
        **options: ``arch``, ``classes``, ``size``, ``mean``, ``std``, ``split`` and ``part`` of `load_classifier`;
            ``classes`` may also say which output stands for which class of the images.

    Returns:
        What ``purify.json`` holds.

    Raises:
        FileExistsError: If something is in the place of ``out``.
        ValueError: If the model cannot be read or is not better than chance on the images, the defense needs what is
            not there, or the folder beside ``out`` is somebody else's.
    """
    model, out, arch = Path(model), Path(out), options.get("arch")
    check_seed(seed)
    _check_free(out)
    _check_form(model, out)
    work = out.with_name(f"{out.name}.purify")
    check_claim(work)
    check_apart(work, data)
    if model.resolve().is_relative_to(work.resolve()):
        raise ValueError(
            f"Expected a model outside '{work}', where files are replaced, got '{model}'. Move it elsewhere."
        )
    if defense != AUTO:
        check_defense(defense, target)
    elif target is not None:
        raise ValueError("Expected no --target with --with auto, which finds it. Name a defense, or leave it out.")
    trust = [*trust, *([arch] if arch and ":" not in arch else [])]
    with trusting(trust):
        job = read_job(model, data, work, seed, options)
        for note in job.images.notes:
            say(note)
        choice = Choice(defense, None if target is None else find_class(target, job.images.names), "named")
        claim(work)

        def audit(path: Path, folder: str) -> dict[str, Any]:
            from lit_backdoor.audit import run_audit

            say(f"audit: {path} …")
            how = options if path == model else options_for(path, options)
            found = run_audit(path, data, work / folder, budget=budget, seed=seed, trust=trust, say=say, **how)
            return {key: found.get(key) for key in _FOUND}

        found = audit(model, "audit") if defense == AUTO else None
        if found is not None:
            choice = choose(found, job.images.names)
        report = _describe(job, choice, found)
        if choice.defense is None:
            _write(report, work)
            return report
        say(f"defense: {choice.defense} ({choice.why})")
        returned = job.clean(choice.defense, choice.target, out.name, settings=settings, trust=trust, say=say)
        report["after"] = job.measure(job.reread(returned.path), choice.target)
        report["written"] = {"path": str(out), "form": returned.form, "adds": returned.adds, "left": returned.left}
        report["audit_after"] = None if found is None else audit(returned.path, "audit_after")
    _write(report, work)
    _check_free(out, f" The cleaned model is at '{returned.path}'.")
    returned.path.rename(out)
    return report


def _check_free(out: Path, more: str = " Name another.") -> None:
    if out.exists() or out.is_symlink():
        raise FileExistsError(f"Expected nothing at '{out}', where the cleaned model is to be written.{more}")


def _check_form(model: Path, out: Path) -> None:
    """Check that the name of a file to write does not say another format than that of the suspect's, which it gets."""
    if not model.is_file() or out.suffix in ("", model.suffix):
        return
    if is_safetensors(model) != (out.suffix == ".safetensors"):
        raise ValueError(
            f"Expected --out to end in '{model.suffix}', as '{model}' does, since the cleaned model comes back in that "
            f"format, got '{out}'."
        )


def _describe(job: Job, choice: Choice, audit: dict[str, Any] | None) -> dict[str, Any]:
    """Describe what is known before the suspect is cleaned."""
    held, names = int(job.held.sum()), job.images.names
    return {
        "format": FORMAT,
        "version": __version__,
        "model": {"path": str(job.model), "classes": job.classifier.num_classes, "size": job.classifier.input_size},
        "data": {"data": str(job.images.data), "root": len(job.held) - held, "held_out": held,
                 "notes": list(job.images.notes)},
        "seed": job.seed,
        "defense": choice.defense,
        "target": None if choice.target is None else {"class": choice.target, "name": names[choice.target]},
        "why": choice.why,
        "before": job.measure(job.classifier, choice.target),
        "after": None,
        "written": None,
        "audit": audit,
        "audit_after": None,
    }  # fmt: skip


def _write(report: dict[str, Any], work: Path) -> None:
    write_whole(work / "purify.json", json.dumps(json_ready(report), indent=1, allow_nan=False) + "\n")
