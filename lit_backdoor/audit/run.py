"""The audit of one model: is it better than chance, what do the detectors find, how likely is a backdoor."""

from __future__ import annotations

import json
import math
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from lit_backdoor import __version__
from lit_backdoor.audit.accuracy import check_accuracy, check_gradients
from lit_backdoor.audit.bench import Bench
from lit_backdoor.audit.calibration import calibrate, read_reference
from lit_backdoor.audit.detectors import DETECTORS, Finding, confirm
from lit_backdoor.audit.images import Images, open_images, read_outputs
from lit_backdoor.audit.page import write_page
from lit_backdoor.audit.sources import Data, check_apart
from lit_backdoor.audit.verdict import SUSPICIOUS, decide, targets_of
from lit_backdoor.bundle import Bundle, json_ready, open_bundle, save_bundle
from lit_backdoor.chain.folders import write_whole
from lit_backdoor.disk import check_claim, claim
from lit_backdoor.errors import check_seed, one_of
from lit_backdoor.models import Classifier, load_classifier
from lit_backdoor.recipe import trusting

__all__ = ["FORMAT", "run_audit"]

FORMAT = 1
_LEAST = 3  # classes that can be compared
_RESERVED = 5.0  # seconds of the budget for the pages


def run_audit(
    model: str | Path | Classifier,
    data: Data,
    out: str | Path,
    *,
    budget: float = 240.0,
    seed: int = 0,
    arch: str | None = None,
    classes: str | int | Mapping[str, int] | Sequence[str] | None = None,
    size: int | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    split: str | None = None,
    part: str | None = None,
    detectors: Sequence[str] | None = None,
    trust: Sequence[str] = (),
    say: Callable[[str], None] = lambda line: None,
) -> dict[str, Any]:
    """Audit a model on clean images, as ``lit-backdoor audit`` does; writes ``audit.json`` and ``audit.html``.

    Args:
        model: What `load_classifier` takes, or a classifier.
        data: What `lit_backdoor.audit.sources.open_source` takes, such as a folder of class folders.
        out: Folder to write; new, empty or of an earlier audit, whose detectors are not run again.
        budget: Seconds; detectors that do not fit are left out, and named.
        seed: Seed of the detectors, and of the choice of images where there are many.
        arch: As `load_classifier` has it.
        classes: What `lit_backdoor.audit.images.read_outputs` takes: the number of classes, or which output each class
            of the images stands for.
        size: As `load_classifier` has it.
        mean: As `load_classifier` has it.
        std: As `load_classifier` has it.
        split: As `load_classifier` has it.
        part: As `load_classifier` has it.
        detectors: Names of those to run; None for all.
        trust: Packages and modules whose classes the model's bundle may name.
        say: Prints one line.

    Returns:
        What ``audit.json`` holds. ``verdict`` is None where no detector could say anything.

    Raises:
        FileNotFoundError: If the model or the images are not there.
        ValueError: If the model cannot be loaded, the images do not fit, accuracy is not above chance, or the folder
            holds what this package did not write.
    """
    started, folder = time.monotonic(), Path(out)
    if not 0 < budget < math.inf:
        raise ValueError(f"Expected a budget of some seconds, got {budget}.")
    check_seed(seed)
    for name in detectors or ():
        one_of("detector", name, [detector.name for detector in DETECTORS])
    _check_folder(folder)
    check_apart(folder, data)
    count, outputs = read_outputs(classes)
    trust = (*trust, *(() if arch is None or ":" in arch else (arch.rpartition(".")[0],)))
    classifier, known, notes = _load(
        model, trust, arch=arch, classes=count, size=size, mean=mean, std=std, split=split, part=part
    )
    if classifier.num_classes < _LEAST:
        raise ValueError(
            f"Expected a model of at least {_LEAST} classes, got {classifier.num_classes}: detectors look for one that "
            "stands out, so such a model cannot be audited. It can be cleaned: lit-backdoor purify MODEL --with "
            "fine_tune."
        )
    images = open_images(data, outputs or known, classifier.num_classes, seed)
    for note in (*notes, *images.notes):
        say(note)
    pixels = images.pixels(classifier.input_size)
    check_gradients(classifier, pixels)
    accuracy = check_accuracy(classifier, images, pixels)
    say(f"accuracy {accuracy.value:.3f} on {accuracy.count} images (chance {accuracy.chance:.3f})")

    suspect = _prepare(folder, classifier, images)
    stored = folder / "images.parquet"
    images.save(pixels, stored)
    bench = Bench(suspect, classifier, pixels, images.labels, stored, folder, seed, trust)
    findings, speed = [], bench.speed()
    for detector in (each for each in DETECTORS if detectors is None or each.name in detectors):
        left = budget - _RESERVED - (time.monotonic() - started)
        findings.append(bench.run(detector, left, speed))
        confirmed = confirm(findings)
        say(_line(findings[-1], images.names))
        for finding in confirmed:
            if finding is not findings[-1]:
                say(f"{finding.detector.title}: flags {_listed(finding, images.names)} as well")

    scores = {found.detector.name: found.score for found in findings if found.score is not None}
    tops = {found.detector.name: found.top for found in findings}
    probability, calibration = calibrate(scores, tops, classifier.num_classes, read_reference())
    if probability is not None and probability >= SUSPICIOUS:
        for finding in confirm(findings, likely=calibration["detectors"]):
            say(f"{finding.detector.title}: flags {_listed(finding, images.names)}, since a backdoor is likely")
    audit = {
        "format": FORMAT,
        "verdict": decide(findings, probability, calibration["detectors"]),
        "complete": all(finding.status == "ran" for finding in findings),
        "probability": probability,
        "calibration": calibration,
        "model": _describe(model, classifier, suspect, images.names),
        "data": _data_of(data, images),
        "accuracy": accuracy.value,
        "chance": accuracy.chance,
        "detectors": [finding.entry() for finding in findings],
        "targets": targets_of(findings, images.names),
        "notes": [*notes, *images.notes],
        "budget": budget,
        "seconds": round(time.monotonic() - started, 2),
        "seed": seed,
        "versions": {"lit_backdoor": __version__, "torch": torch.__version__},
    }
    audit = dict(json_ready(audit))
    write_page(folder / "audit.html", audit, findings, images, pixels, classifier)
    write_whole(folder / "audit.json", json.dumps(audit, indent=1, allow_nan=False) + "\n")  # the last of all
    return audit


def _check_folder(folder: Path) -> None:
    """Check that an audit may be written to a folder: a new one, or that of an earlier audit, not of a chain."""
    check_claim(folder)
    if (folder / ".runs").is_dir():
        raise ValueError(
            f"Expected --out to be a new or empty folder, or one of an earlier audit, got that of a chain, {folder}. "
            "Give another --out."
        )


def _load(
    model: str | Path | Classifier, trust: Sequence[str], **options: Any
) -> tuple[Classifier, dict[str, int], list[str]]:
    """Load the model; gives it with the outputs of the classes that it names, and what was guessed."""
    known: dict[str, int] = {}
    if isinstance(model, Classifier):
        return model.eval(), known, []
    with warnings.catch_warnings(record=True) as said, trusting(trust):
        warnings.simplefilter("always", UserWarning)
        classifier = load_classifier(model, **options)
    if (Path(model) / "bundle.json").is_file():
        names = open_bundle(model).info.get("class_names") or ()
        known = {name: output for output, name in enumerate(names)} if len(names) == classifier.num_classes else {}
    device = "cuda" if torch.cuda.is_available() else "cpu"
    return classifier.to(device).eval(), known, [str(warning.message) for warning in said]


def _prepare(folder: Path, classifier: Classifier, images: Images) -> Bundle:
    """Make the folder ours, remove an earlier verdict, and write the model as a bundle that knows of no attack."""
    claim(folder)
    for name in ("audit.json", "audit.html"):
        (folder / name).unlink(missing_ok=True)
    return save_bundle(folder / "suspect", kind="suspect", module=classifier, meta={"class_names": list(images.names)})


def _describe(
    model: str | Path | Classifier, classifier: Classifier, suspect: Bundle, names: Sequence[str]
) -> dict[str, Any]:
    arguments = suspect.info["model"]["init_args"]
    return {
        "path": None if isinstance(model, Classifier) else str(model),
        "hash": suspect.hash,
        "arch": str(arguments.get("factory") or arguments.get("name") or type(classifier).__name__),
        "classes": classifier.num_classes,
        "class_names": list(names),
        "size": classifier.input_size,
        "mean": list(classifier.mean),
        "std": list(classifier.std),
        "weights": sum(weight.numel() for weight in classifier.parameters()),
    }


def _data_of(data: Data, images: Images) -> dict[str, Any]:
    counts = images.labels.bincount(minlength=len(images.names))
    return {
        "path": str(data) if isinstance(data, str | Path) else None,
        "images": len(images.labels),
        "classes": int((counts > 0).sum()),
        "images_per_class": counts.tolist(),
    }


def _line(finding: Finding, names: Sequence[str]) -> str:
    head = f"{finding.detector.title}: {finding.status}"
    if finding.status != "ran":
        return f"{head}. {finding.reason}"
    said = f"{head} in {finding.seconds:.0f} s, flags {_listed(finding, names) or 'no class'}"
    if finding.unconfirmed is None:
        return said
    return f"{said} yet: its trigger leads to '{names[finding.unconfirmed]}', which counts if another one flags it"


def _listed(finding: Finding, names: Sequence[str]) -> str:
    return ", ".join(f"'{names[label]}'" for label in finding.flagged)
