"""The page of an audit: the verdict in words, what each detector says of each class, and the recovered triggers."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lit_backdoor.audit.detectors import Finding
from lit_backdoor.audit.images import Images
from lit_backdoor.audit.recovered import recovered
from lit_backdoor.chain.folders import write_whole
from lit_backdoor.page.swarm import Dot, swarm
from lit_backdoor.page.template import Section, renderer
from lit_backdoor.page.words import DASH, count, duration, percent

__all__ = ["write_page"]

render = renderer(Path(__file__).parent / "templates")
_ALWAYS = "“Clean” says that these detectors found nothing. A backdoor that they do not see may be there all the same."
_TONES = {"clean": "plain", "suspicious": "plain", "backdoored": "bad", None: "plain"}


def write_page(
    path: Path, audit: Mapping[str, Any], findings: Sequence[Finding], images: Images, pixels: Any, classifier: Any
) -> Path:
    """Write ``audit.html``: one file, without scripts, that needs no network.

    Args:
        path: The file.
        audit: What ``audit.json`` will hold.
        findings: What the detectors found, with their bundles.
        images: The person's images.
        pixels: They at the model's size, uint8 ``[N, C, H, W]``.
        classifier: The model.

    Returns:
        The path.
    """
    parts = [
        Section("verdict", "", _verdict(audit)),
        Section("detectors", "What the detectors say", _detectors(findings, images.names)),
        _classes(findings, images.names),
        _triggers(recovered(findings, classifier, pixels, images.labels, images.names)),
        Section("about", "What was audited", _about(audit)),
    ]
    title = f"audit of {Path(audit['model']['path'] or 'a model').name}"
    page = render("audit.html", title=title, sections=[part for part in parts if part is not None])
    write_whole(path, page.encode("utf-8", "xmlcharrefreplace").decode())  # classes may have undecodable names
    return path


def _verdict(audit: Mapping[str, Any]) -> Any:
    data, model = audit["data"], audit["model"]
    setting = (
        f"{model['arch']}, {count(model['classes'])} classes, {model['size']} px · audited on {count(data['images'])} "
        f"clean images of {count(data['classes'])} classes in {duration(audit['seconds'])}"
    )
    word, sentence = _sentence(audit)
    notes = [*([_ALWAYS] if audit["verdict"] == "clean" else []), *audit["calibration"]["warnings"], *audit["notes"]]
    return render(
        "verdict.html", word=word, sentence=sentence, tone=_TONES[audit["verdict"]], setting=setting,
        tiles=_tiles(audit), notes=notes,
    )  # fmt: skip


def _sentence(audit: Mapping[str, Any]) -> tuple[str, str]:
    """Say the verdict: a word, and the rest of the sentence."""
    targets, verdict = audit["targets"], audit["verdict"]
    able = sum(each["status"] == "ran" for each in audit["detectors"])
    said = f"{able} of {len(audit['detectors'])} detectors ran"
    if verdict is None:
        return "No verdict", f": no detector could say anything; {said}."
    if not targets:
        return verdict.capitalize(), f": no class is flagged; {said}."
    first, agreeing = targets[0], len(targets[0]["detectors"])
    flag = "detector flags" if agreeing == 1 else "detectors agree on"
    others = f", and {len(targets) - 1} more flagged" if len(targets) > 1 else ""
    return verdict.capitalize(), f": {agreeing} {flag} “{first['name']}”{others}; {said}."


def _tiles(audit: Mapping[str, Any]) -> list[dict[str, str]]:
    said = audit["calibration"]
    if audit["probability"] is None:
        chance = {"value": DASH, "meaning": "too few reference models have the scores of the detectors that ran"}
    else:
        quality = f"left out one at a time: AUROC {said['auroc']:.2f}, log loss {said['log_loss']:.2f} (of one half "
        quality += f"{said['base_log_loss']:.2f}), Brier {said['brier']:.2f}"
        on = f"{said['models']} reference models, {said['poisoned']} of them poisoned"
        chance = {"value": percent(audit["probability"], 0), "meaning": f"at even odds, calibrated on {on}; {quality}"}
    ran = sum(each["status"] == "ran" for each in audit["detectors"])
    flagged = [target["name"] for target in audit["targets"]]
    return [
        {"title": "Probability of a backdoor", **chance},
        {"title": "Classes flagged", "value": count(len(flagged)), "meaning": ", ".join(flagged[:5]) or "none"},
        {
            "title": "Detectors", "value": f"{ran} of {len(audit['detectors'])}",
            "meaning": "all of them ran" if audit["complete"] else "the others failed or did not fit into the budget",
        },
        {
            "title": "Accuracy", "value": percent(audit["accuracy"]),
            "meaning": f"on your images; {percent(audit['chance'])} is chance",
        },
    ]  # fmt: skip


def _detectors(findings: Sequence[Finding], names: Sequence[str]) -> Any:
    rows = [
        {
            "title": finding.detector.title,
            "status": finding.status,
            "ran": finding.status == "ran",
            "seconds": duration(finding.seconds) if finding.seconds else DASH,
            "flags": ", ".join(f"“{names[label]}”" for label in finding.flagged),
            "reason": finding.reason,
            "top": f"Most suspicious: “{names[finding.top]}”."
            if finding.top is not None and not finding.flagged
            else "",
        }
        for finding in findings
    ]
    return render("detectors.html", rows=rows)


def _classes(findings: Sequence[Finding], names: Sequence[str]) -> Section | None:
    """Draw a dot per class for each detector."""
    charts, missing = [], False
    for finding in findings:
        pairs = list(zip(finding.statistics, names, strict=False))
        dots = [
            Dot(value, name, label in finding.flagged)
            for label, (value, name) in enumerate(pairs)
            if math.isfinite(value)
        ]
        missing = missing or len(dots) < len(pairs)
        if dots:
            flagged = ", ".join(dot.name for dot in dots if dot.marked) or "none"
            alt = f"{finding.detector.title}: {len(dots)} classes by {finding.detector.statistic}; flagged: {flagged}."
            axis = f"{finding.detector.suspicious} is suspicious"
            statistic = finding.detector.statistic
            charts.append({"title": finding.detector.title, "statistic": statistic, "svg": swarm(dots, 350, axis, alt)})
    if not charts:
        return None
    return Section(
        "classes", "How easily each class is reached", render("classes.html", charts=charts, missing=missing)
    )


def _triggers(found: Sequence[Mapping[str, Any]]) -> Section | None:
    if not found:
        return None
    return Section("triggers", "Recovered triggers on your images", render("triggers.html", recovered=found))


def _about(audit: Mapping[str, Any]) -> Any:
    model, data, said = audit["model"], audit["data"], audit["calibration"]
    statistics = [", ".join(f"{value:.3g}" for value in model[key]) for key in ("mean", "std")]
    groups = [
        (
            "Model",
            [
                ("file", model["path"] or DASH), ("architecture", model["arch"]), ("classes", count(model["classes"])),
                ("weights", count(model["weights"])), ("images of", f"{model['size']} px"),
                ("mean and std", " and ".join(statistics)), ("hash", model["hash"][:16]),
            ],
        ),
        (
            "Images",
            [
                ("folder", data["path"] or DASH), ("images", count(data["images"])),
                ("classes", f"{data['classes']} of {model['classes']}"), ("accuracy", percent(audit["accuracy"])),
            ],
        ),
        (
            "Probability",
            [
                ("from the scores of", ", ".join(said["detectors"]) or DASH),
                ("reference models", f"{said['models']}, {said['poisoned']} poisoned" if said["models"] else "too few"),
                ("setups", ", ".join(said["setups"]) or DASH), ("nets", ", ".join(said["nets"]) or DASH),
                ("attacks", ", ".join(said["attacks"]) or DASH),
            ],
        ),
        (
            "Run",
            [
                ("budget", duration(audit["budget"])), ("time", duration(audit["seconds"])),
                ("seed", str(audit["seed"])), *((name, version) for name, version in audit["versions"].items()),
            ],
        ),
    ]  # fmt: skip
    return render("groups.html", groups=groups)
