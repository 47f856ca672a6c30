"""The detectors of an audit: those that need a few clean images only, the cheapest first, and what each one found."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from lit_backdoor.audit.accuracy import predict
from lit_backdoor.bundle import Bundle
from lit_backdoor.functional.outliers import smallest_p_value
from lit_backdoor.models import Classifier
from lit_backdoor.stages.target_detection import read_report
from lit_backdoor.triggers import stamped_by

__all__ = ["DETECTORS", "Detector", "Finding", "confirm", "examine"]

VOTES = 0.9  # share of images that an inverted trigger sends to a class, from which on the class may be flagged
_SUREST = 12.0  # largest score; beyond it p-values are noise
_LEAST = 3  # classes that can be compared


@dataclass(frozen=True)
class Detector:
    """A detector.

    Attributes:
        name: Its name in ``audit.json``, and of its stage.
        title: What people call it.
        chain: The configuration that has its stages.
        stage: The stage of that configuration whose bundle holds the finding.
        statistic: What its number per class is.
        suspicious: Which of these numbers are: ``small`` or ``large`` ones.
        work: Images that go through the model and back, for a number of classes.
    """

    name: str
    title: str
    chain: str
    stage: str
    statistic: str
    suspicious: str
    work: Callable[[int], float]


DETECTORS = (
    Detector(
        "tac", "TAC", "tac/detect", "detect", "size of the change of latents that sends all images to the class",
        "small", lambda classes: 1_000 + 2 * classes**2,
    ),
    Detector(
        "btidbf", "BTI-DBF", "btidbf_u/invert", "invert", "share of images that the inverted trigger sends there",
        "large", lambda classes: 25_000,
    ),
    Detector(
        "nc", "Neural Cleanse", "nc/detect", "detect", "size of the smallest mask that sends images to the class",
        "small", lambda classes: 960 * 8 * classes,
    ),
    Detector(
        "pixel", "Pixel", "pixel/detect", "detect", "fewest pixels to change that send images to the class",
        "small", lambda classes: 248 * 32 * classes,
    ),
    Detector(
        "martini", "MARTINI", "martini/detect", "detect", "cost of the trigger that sends images to the class",
        "small", lambda classes: 40_000 + 60 * 64 * classes,
    ),
)  # fmt: skip


@dataclass
class Finding:
    """What became known by one detector.

    Attributes:
        detector: The detector.
        status: ``ran``, ``failed`` or ``left out``.
        seconds: How long it took.
        reason: Why it failed, was left out or could not compare the classes.
        statistics: A number per class; infinite where nothing was found or the class is not judged.
        score: How suspicious the model is by it, more where larger; None where it cannot say.
        flagged: The classes that it decides for.
        top: The most suspicious class.
        success: Share of the images of other classes that the recovered trigger sends to `target`.
        bundle: What its stage wrote.
    """

    detector: Detector
    status: str
    seconds: float = 0.0
    reason: str | None = None
    statistics: tuple[float, ...] = ()
    score: float | None = None
    flagged: tuple[int, ...] = ()
    top: int | None = None
    success: float | None = None
    bundle: Bundle | None = None

    @property
    def target(self) -> int | None:
        """The class that its trigger is for: the first that it flags, or else the most suspicious one."""
        return self.flagged[0] if self.flagged else self.top

    @property
    def unconfirmed(self) -> int | None:
        """The class that a detector which names one for every model would flag if another one did."""
        sure = self.detector.suspicious == "large" and max(self.statistics, default=0.0) >= VOTES
        return self.top if sure and not self.flagged else None

    def entry(self) -> dict[str, Any]:
        """Write it as ``audit.json`` has it; numbers that are not finite become null there."""
        return {
            "name": self.detector.name,
            "status": self.status,
            "seconds": round(self.seconds, 2),
            "reason": self.reason,
            "statistic": self.detector.statistic,
            "suspicious": self.detector.suspicious,
            "statistics": list(self.statistics),
            "score": self.score,
            "flagged": list(self.flagged),
            "top": self.top,
            "success": self.success,
        }


def examine(detector: Detector, bundle: Bundle, classifier: Classifier, pixels: Tensor, labels: Tensor) -> Finding:
    """Read what a detector's stage found, and try its trigger on the images.

    Args:
        detector: The detector.
        bundle: What its stage wrote.
        classifier: The model.
        pixels: The images, uint8 ``[N, C, H, W]``.
        labels: Their classes, int64 ``[N]``.
    """
    finding = Finding(detector, "ran", bundle=bundle)
    shares = _shares(bundle, classifier, pixels, labels)
    if bundle.kind == "targets":
        report = read_report(bundle)
        judged = int(report.statistic.isfinite().sum())
        finding.statistics, finding.flagged = tuple(report.statistic.tolist()), report.flagged
        finding.top = report.top if judged else None
        if judged < _LEAST:
            finding.reason = f"It found something for {judged} classes only, and compares at least {_LEAST}."
        else:
            finding.score = min(_SUREST, -math.log10(max(smallest_p_value(report.statistic), 10**-_SUREST)))
    elif shares is not None:
        finding.statistics, finding.top = tuple(shares.tolist()), int(shares.argmax())
        finding.score = -math.log10(max(1 - float(shares.max()), 1 / len(labels)))
    if shares is not None and finding.target is not None:
        finding.success = float(shares[finding.target])
    return finding


def confirm(findings: Sequence[Finding], likely: Collection[str] = ()) -> list[Finding]:
    """Let a detector that names a class for every model flag it if another one flags the same class.

    Args:
        findings: What the detectors found.
        likely: Names of detectors by whose scores a backdoor is likely; these need no other one.

    Returns:
        The findings that flag a class now and did not before.
    """
    flagged = {label for finding in findings for label in finding.flagged}
    confirmed = []
    for finding in findings:
        named = finding.unconfirmed
        if named is not None and (named in flagged or finding.detector.name in likely):
            finding.flagged = (named,)
            confirmed.append(finding)
    return confirmed


@torch.no_grad()
def _shares(bundle: Bundle, classifier: Classifier, pixels: Tensor, labels: Tensor) -> Tensor | None:
    """Give for each class the share of other classes' images that the recovered trigger sends there, float ``[C]``."""
    if bundle.info["model"] is None:
        return None
    device = next(iter(classifier.state_dict().values())).device
    trigger, answers = bundle.build().to(device), []
    for start, batch in enumerate(torch.split(pixels, 32)):
        index = torch.arange(32 * start, 32 * start + len(batch), device=device)
        answers.append(predict(classifier, stamped_by(trigger, batch.to(device).float() / 255, index).clamp(0, 1)))
    given, count = torch.cat(answers), classifier.num_classes
    others = len(labels) - labels.bincount(minlength=count)
    sent = given[given != labels].bincount(minlength=count)
    return torch.where(others > 0, sent / others, 0.0)
