"""The whole of it: import, audit, choose, clean, write back, measure."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from torch import Tensor

from lit_backdoor import __version__
from lit_backdoor.audit.accuracy import check_accuracy
from lit_backdoor.audit.images import Images, open_images, read_outputs
from lit_backdoor.bundle import Bundle, json_ready, open_bundle, save_bundle
from lit_backdoor.chain.classes import trusted
from lit_backdoor.chain.folders import write_whole
from lit_backdoor.chain.run import ChainRun
from lit_backdoor.disk import check_claim, claim
from lit_backdoor.models import Classifier, load_classifier
from lit_backdoor.purify.chain import check_defense, make_chain, make_setup
from lit_backdoor.purify.choice import AUTO, Choice, choose, find_class
from lit_backdoor.purify.images import accuracy_on, hold_out, write_parts
from lit_backdoor.purify.returned import Returned, write_returned
from lit_backdoor.recipe import trusting

__all__ = ["purify"]

FORMAT = 1
_MOST = 10_000  # images; root sets are smaller
Say = Callable[[str], None]


class _Job(NamedTuple):
    """A model and images that were read, and the folder to work in."""

    model: Path
    classifier: Classifier
    images: Images
    pixels: Tensor
    held: Tensor
    work: Path

    def measure(self, classifier: Classifier, target: int | None) -> dict[str, float | None]:
        """Measure a classifier on the images that were held out."""
        return accuracy_on(classifier, self.pixels[self.held], self.images.labels[self.held], target)


def purify(
    model: str | Path,
    data: Any,
    out: str | Path,
    *,
    defense: str = AUTO,
    target: str | int | None = None,
    settings: Iterable[str] = (),
    seed: int = 0,
    budget: float = 240.0,
    trust: Iterable[str] = (),
    say: Say = lambda line: None,
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
    model, out = Path(model), Path(out)
    work = out.with_name(f"{out.name}.purify")
    if out.exists() or out.is_symlink():
        raise FileExistsError(f"Expected nothing at '{out}', where the cleaned model is to be written. Name another.")
    check_claim(work)
    if defense != AUTO:
        check_defense(defense, target)
    elif target is not None:
        raise ValueError("Expected no --target with --with auto, which finds it. Name a defense, or leave it out.")
    arch = options.get("arch")
    trust = [*trust, *([arch] if arch and ":" not in arch else [])]
    with trusting(trust):
        job = _read(model, data, work, seed, options)
        claimed = None if target is None else find_class(target, job.images.names)
        claim(work)
        audit, choice = None, Choice(defense, claimed, "named")
        if defense == AUTO:
            audit = _audit(model, data, work / "audit", say, budget=budget, seed=seed, **options)
            choice = choose(audit, job.images.names)
        before = job.measure(job.classifier, choice.target)
        report = _report(job, choice, before, seed, audit)
        if choice.defense is not None:
            say(f"defense: {choice.defense} ({choice.why})")
            returned = _clean(job, choice, out, settings, seed, trust, say, options.get("part"))
            report |= _described(job, returned, out, choice, options)
            if audit is not None:
                after = _audit(returned.path, data, work / "audit_after", say, budget=budget, seed=seed, **options)
                report["audit_after"] = _found(after)
        report = dict(json_ready(report))
        write_whole(work / "purify.json", json.dumps(report, indent=1, allow_nan=False) + "\n")
        if choice.defense is not None:
            returned.path.rename(out)
    return report


def _read(model: Path, data: Any, work: Path, seed: int, options: dict[str, Any]) -> _Job:
    """Read the model and the images, and check that they belong together."""
    count, outputs = read_outputs(options.get("classes"))
    classifier = load_classifier(model, **{**options, "classes": count})
    if not outputs and (model / "bundle.json").is_file():
        names = open_bundle(model, "suspect").info.get("class_names") or ()
        outputs = {name: output for output, name in enumerate(names)}
    images = open_images(data, outputs, classifier.num_classes, seed, _MOST)
    pixels = images.pixels(classifier.input_size)
    check_accuracy(classifier, images, pixels)
    return _Job(model, classifier, images, pixels, hold_out(images.labels, seed), work)


def _audit(model: Path, data: Any, out: Path, say: Say, **options: Any) -> dict[str, Any]:
    from lit_backdoor.audit import run_audit

    say(f"audit: {model} …")
    return run_audit(model, data, out, **options)


def _clean(
    job: _Job,
    choice: Choice,
    out: Path,
    settings: Iterable[str],
    seed: int,
    trust: Iterable[str],
    say: Say,
    part: str | None,
) -> Returned:
    """Run the chain, and write its last suspect into the working folder in the form that the model came in."""
    names, size = list(job.images.names), job.classifier.input_size
    suspect = save_bundle(job.work / "suspect", kind="suspect", module=job.classifier, meta={"class_names": names})
    files = write_parts(job.images, job.pixels, job.held, job.work)
    setup = job.work / "setup.yaml"
    described = make_setup(suspect.path.absolute(), suspect.hash, _absolute(files), names, size)
    write_whole(setup, yaml.safe_dump(described, sort_keys=False))
    assert choice.defense is not None
    chain = make_chain(choice.defense, setup, choice.target, settings, seed, trust)
    run = ChainRun(chain, choice.defense, job.work / "chain", use_cache=False, curves=False, say=say)
    with trusting(trusted(run.chain)):
        results = run.run()
        cleaned: Bundle = open_bundle(job.work / "chain" / results["summary"]["stages"]["after"], "suspect")
        return write_returned(suspect, cleaned, job.model, job.work / "returned" / out.name, part)


def _absolute(files: dict[str, Path]) -> dict[str, Path]:
    return {part: path.absolute() for part, path in files.items()}


def _report(
    job: _Job, choice: Choice, before: dict[str, Any], seed: int, audit: dict[str, Any] | None
) -> dict[str, Any]:
    held = int(job.held.sum())
    return {
        "format": FORMAT,
        "version": __version__,
        "model": {"path": str(job.model), "classes": job.classifier.num_classes, "size": job.classifier.input_size},
        "data": {"data": str(job.images.data), "root": len(job.held) - held, "held_out": held,
                 "notes": list(job.images.notes)},
        "seed": seed,
        "defense": choice.defense,
        "target": None if choice.target is None else {"class": choice.target, "name": job.images.names[choice.target]},
        "why": choice.why,
        "before": before,
        "after": None,
        "written": None,
        "chain": None,
        "audit": None if audit is None else _found(audit),
        "audit_after": None,
    }  # fmt: skip


def _found(audit: dict[str, Any]) -> dict[str, Any]:
    return {key: audit.get(key) for key in ("verdict", "probability", "targets")}


def _described(job: _Job, returned: Returned, out: Path, choice: Choice, options: dict[str, Any]) -> dict[str, Any]:
    """Read back what was written, measure it, and describe it."""
    with warnings.catch_warnings():  # what was guessed was said when the suspect was loaded
        warnings.simplefilter("ignore", UserWarning)
        again = load_classifier(returned.path, **{**options, "classes": None})
    written = {"path": str(out), "form": returned.form, "adds": returned.adds, "left": returned.left}
    return {"after": job.measure(again, choice.target), "written": written, "chain": "chain/results.json"}
