"""Detection of the class that a backdoor leads to: one report, whatever finds it."""

from __future__ import annotations

import math
import warnings
from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from operator import index
from typing import Any, ClassVar, SupportsIndex

import torch
from torch import Tensor

from lit_backdoor.bundle import Bundle
from lit_backdoor.functional.outliers import mad_index, smallest_p_value
from lit_backdoor.models import Classifier
from lit_backdoor.stages.base import Outcome, Stage
from lit_backdoor.stages.evaluation import Evaluator
from lit_backdoor.triggers import AllToOne, Attack, OneOf, Trigger

__all__ = ["TargetDetection", "TargetReport", "judges_another", "read_report", "reported", "targets_given"]

IMAGES_PER_CLASS = 2  # with one image, or none, a class is flagged by chance


@dataclass(frozen=True)
class TargetReport:
    """What a detector says about the classes of a suspect.

    Attributes:
        statistic: One number per class, small where a backdoor leads there, float ``[C]``.
        index: Anomaly index per class, large where a backdoor leads there, float ``[C]``.
        flagged: The classes that the detector decides for, the most suspicious first; none for a clean model.
        numbers: More about the decision, such as a p-value.
    """

    statistic: Tensor
    index: Tensor
    flagged: tuple[int, ...]
    numbers: dict[str, Any] = field(default_factory=dict)

    @property
    def top(self) -> int:
        """The most suspicious class, whether flagged or not."""
        return int(self.statistic.nan_to_num(nan=torch.inf).argmin())

    @classmethod
    def by_mad(cls, statistic: Tensor, threshold: float = 2.0, **numbers: Any) -> TargetReport:
        """Flag the classes whose `mad_index` is above the threshold. Neural Cleanse: 2."""
        index = mad_index(statistic)
        order = index.argsort(descending=True, stable=True)
        return cls(statistic, index, tuple(int(c) for c in order if index[c] > threshold), numbers)

    @classmethod
    def by_smallest(cls, statistic: Tensor, level: float = 0.05, **numbers: Any) -> TargetReport:
        """Flag the smallest while its `smallest_p_value` among those not yet flagged is below the level."""
        rest, flagged, first = statistic.double().clone(), [], smallest_p_value(statistic)
        while int(rest.isfinite().sum()) > 2 and smallest_p_value(rest) < level:
            flagged.append(int(rest.nan_to_num(nan=torch.inf).argmin()))
            rest[flagged[-1]] = torch.inf
        return cls(statistic, mad_index(statistic), tuple(flagged), {"p_value": first, **numbers})


class TargetDetection(Stage):
    """Say of every class of a suspect whether a backdoor leads to it.

    A subclass makes the `report`, and the `trigger` of a class if it inverts one. Exports ``statistic`` and ``index``
    (float, per class), ``flagged`` (int64), and the numbers ``target_class`` (the first flagged one, or none),
    ``top_class`` and ``anomaly_index`` (the top class's). The bundle's net is the flagged class's trigger, `OneOf` them
    where several are flagged, and the top class's where none is.

    Args:
        suspect: Path of a suspect bundle, or a classifier; frozen.

    Raises:
        ValueError: When run, if fewer than two classes have the two root images that judging one takes.
    """

    kind: ClassVar[str | None] = "targets"

    def __init__(self, suspect: str | Classifier) -> None:
        super().__init__()
        self.given(suspect=suspect)
        self._judged: Tensor | None = None  # per class of the data, whether it has enough root images

    def on_fit_start(self) -> None:
        """Count the root images of each class."""
        super().on_fit_start()
        self._count_root()

    def on_predict_start(self) -> None:
        """Count the root images of each class."""
        super().on_predict_start()
        self._count_root()

    def _count_root(self) -> None:
        data = self.attached_data
        if data is None or not hasattr(data, "get_view"):
            return
        labels = data.get_view("root").label
        if (labels < 0).any():  # nobody labeled them, so there is nothing to count
            return
        names = [str(name) for name in data.class_names]
        self._judged = labels.bincount(minlength=len(names)) >= IMAGES_PER_CLASS
        left_out = [names[c] for c in (~self._judged).nonzero().flatten().tolist()]
        if int(self._judged.sum()) < 2:
            raise ValueError(
                f"Expected at least {IMAGES_PER_CLASS} root images in each of two or more classes for "
                f"{type(self).__name__}, got {len(labels)} images in {len(labels.unique())} classes. Give a larger "
                "root set, such as data.init_args.split.root_pool=250."
            )
        if left_out:
            warnings.warn(
                f"{len(left_out)} classes have fewer than {IMAGES_PER_CLASS} root images and are not judged: "
                f"{', '.join(left_out[:10])}{' …' if len(left_out) > 10 else ''}.",
                stacklevel=2,
            )

    def only_judged(self, statistic: Tensor) -> Tensor:
        """Make a statistic ``[C]`` infinite for classes with too few root images, which takes them out of the test."""
        if self._judged is None:
            return statistic
        judged = torch.zeros(len(statistic), dtype=torch.bool, device=statistic.device)
        known = self._judged[: len(statistic)]
        judged[: len(known)] = known.to(statistic.device)
        return statistic.masked_fill(~judged, torch.inf)

    def evaluator(self) -> Evaluator:
        """Measure nothing: the report is about the suspect, there is nothing to try on test images."""
        return Evaluator()

    @abstractmethod
    def report(self) -> TargetReport:
        """Judge the classes, once training or prediction is over; the same in every process."""
        raise NotImplementedError

    def trigger(self, target: int) -> Trigger | None:
        """Give the trigger that was inverted for a class; None where none is."""
        return None

    def outcome(self) -> Outcome:
        """Export the report, with the triggers of the flagged classes, or else of the most suspicious one."""
        return reported(self.report(), self.trigger)


def reported(report: TargetReport, trigger_of: Callable[[int], Trigger | None]) -> Outcome:
    """Give what a detector exports: its report, and the triggers of the flagged classes or else of the top class.

    Args:
        report: The report.
        trigger_of: Gives the trigger that was inverted for a class; None where none is.
    """
    numbers = {
        "target_class": report.flagged[0] if report.flagged else None,
        "top_class": report.top,
        "anomaly_index": worst if math.isfinite(worst := float(report.index[report.top])) else None,
        **report.numbers,
    }
    tensors = {
        "statistic": report.statistic.float().cpu(),
        "index": report.index.float().cpu(),
        "flagged": torch.tensor(report.flagged, dtype=torch.long),
    }
    found = [each for each in map(trigger_of, report.flagged or (report.top,)) if each is not None]
    return Outcome(OneOf(found) if len(found) > 1 else found[0] if found else None, tensors, numbers)


def targets_given(stage: Stage, num_classes: int, name: str = "target") -> tuple[int, ...]:
    """Take the target classes that a defense was given: by hand, or as a bundle that names them.

    Args:
        stage: The stage that was given them.
        num_classes: Classes of the suspect.
        name: The argument that holds them: a class; or the path of a bundle of kind ``targets``, for its flagged
            classes, or ``trigger``, for its ``target_class``.

    Returns:
        The classes, the most suspicious first; none if the detector found none.

    Raises:
        ValueError: If a class is out of range, or the report is on another number of classes.
    """
    value, bundle = stage.arguments[name], stage.bundle(name)
    if value is None:
        raise ValueError(
            "Expected a target class, got None, as where a detector flagged nothing: then there is nothing to defend "
            "against, the suspect stays as it is. A detector's bundle in the place of the class does that by itself."
        )
    if bundle is not None:
        found = _targets_of(stage, bundle, num_classes)
    elif isinstance(value, SupportsIndex) and not isinstance(value, bool):
        found = (index(value),)
        _warn_of_another(stage, found[0])
    else:
        raise ValueError(f"Expected a target as a class number or the path of a bundle, got {value!r}.")
    for target in found:
        if not 0 <= target < num_classes:
            raise ValueError(f"Expected a target class from 0 to {num_classes - 1}, got {target}.")
    return found


def _targets_of(stage: Stage, bundle: Bundle, num_classes: int) -> tuple[int, ...]:
    """Take the classes that a bundle names; warn where they were found on another suspect."""
    named = bundle.numbers.get("target_class")
    report = read_report(bundle) if bundle.kind == "targets" else None
    flagged, reported = (report.flagged, len(report.statistic)) if report is not None else ((named,), num_classes)
    if reported != num_classes:
        raise ValueError(f"Expected a report on {num_classes} classes, got one on {reported} in {bundle.path}.")
    if not all(c is None or type(c) is int for c in flagged):
        raise ValueError(f"Expected {bundle.path} to name its target by a class number, got {named!r}.")
    if judges_another(stage, bundle):
        warnings.warn(
            f"The class that {type(stage).__name__} takes from {bundle.path} was found on another suspect than its "
            "own. If that is not meant, detect on the one that is to be cleaned.",
            stacklevel=3,
        )
    return tuple(c for c in flagged if c is not None)


def read_report(bundle: Bundle) -> TargetReport:
    """Read a detector's report back from its bundle.

    Raises:
        ValueError: If the bundle does not hold one.
    """
    tensors = bundle.tensors()
    statistic, flagged = tensors.get("statistic"), tensors.get("flagged")
    if statistic is None or flagged is None or statistic.ndim != 1 or flagged.ndim != 1:
        raise ValueError(
            f"Expected a report on target classes in {bundle.path}: tensors 'statistic', a number per class, and "
            f"'flagged', a list of classes. Got the shapes { ({name: list(t.shape) for name, t in tensors.items()}) }."
        )
    if flagged.is_floating_point() or flagged.dtype == torch.bool:
        raise ValueError(f"Expected the flagged classes in {bundle.path} as whole numbers, got {flagged.dtype}.")
    found = tuple(int(label) for label in flagged.tolist())
    if len(set(found)) < len(found) or any(not 0 <= label < len(statistic) for label in found):
        raise ValueError(
            f"Expected different flagged classes from 0 to {len(statistic) - 1} in {bundle.path}, got {list(found)}."
        )
    scores = tensors.get("index", torch.full_like(statistic, torch.nan))
    return TargetReport(statistic, scores, found, dict(bundle.numbers))


def judges_another(stage: Stage, bundle: Bundle) -> bool:
    """Say whether a report is about another suspect than the stage's, as far as both are known by their bundles."""
    judged, own = bundle.info["inputs"].get("suspect"), stage.sources.get("suspect")
    return judged is not None and own is not None and judged["hash"] != own.hash


def _warn_of_another(stage: Stage, target: int) -> None:
    """Warn where a class given by hand is not the one that the data's attack leads to."""
    attack = getattr(stage.attached_data, "attack", None)
    known = getattr(attack, "target", None)
    if isinstance(attack, Attack) and isinstance(attack.policy, AllToOne) and known != target:
        warnings.warn(
            f"{type(stage).__name__} was given class {target} as target, the data's attack leads to {known}. If that "
            f"is not meant, set model.init_args.target={known}, or take the class from a detector.",
            stacklevel=3,
        )
