"""Evaluation of bundles: every number of a result comes from here, in one process, never from the run that trained."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torchmetrics import Metric

from lit_backdoor.bundle import Bundle, open_bundle
from lit_backdoor.metrics import DegreeOfFeatureCollisions, FeatureDistance, SelectionScores, TacFidelity
from lit_backdoor.models import Classifier, Frozen
from lit_backdoor.models.latents import latents_and_logits
from lit_backdoor.stages.base import Batch, Stage
from lit_backdoor.stages.generator_training import update_dof
from lit_backdoor.stages.input_detection import InputDetection
from lit_backdoor.stages.target_detection import read_report
from lit_backdoor.triggers import Role

__all__ = [
    "TESTED",
    "DetectorEvaluation",
    "Evaluation",
    "GeneratorEvaluation",
    "PerturbationEvaluation",
    "SelectionEvaluation",
    "TargetEvaluation",
    "TriggerEvaluation",
    "evaluation_of",
    "update_feature_distance",
]


class Evaluation(Stage):
    """Test a suspect on the clean and the triggered view: ACC, ASR, RA, and ACC on the attack's class.

    Args:
        bundle: Path of a suspect bundle, or a classifier.
    """

    views: ClassVar[tuple[str, ...]] = ("clean",)

    def __init__(self, bundle: str | Classifier) -> None:
        super().__init__()
        self.given(bundle=bundle)
        self._ready = True

    def build(self) -> None:
        """Open the suspect."""
        self.net = Frozen(self.open_classifier("bundle"))

    def logits(self, images: Tensor) -> Tensor:
        """Classify by the suspect."""
        return self.net(images)  # type: ignore[no-any-return]


class GeneratorEvaluation(Evaluation):
    """Test a generator against the suspect it was trained on, which its bundle names: DoF.

    Args:
        bundle: Path of a generator bundle.
    """

    def __init__(self, bundle: str) -> None:
        super().__init__(bundle)

    def metrics(self) -> dict[str, Metric]:
        """Measure DoF."""
        return {"dof": DegreeOfFeatureCollisions()}

    def build(self) -> None:
        """Open the generator and its suspect."""
        self.generator = Frozen(self.open("bundle", "generator"))
        source = input_of(self._sources["bundle"], "suspect")
        self.given(suspect=str(source.path))
        self.net = Frozen(self.open_classifier())

    def evaluate(self, batch: Batch, metrics: Any) -> list[str]:
        """Compare logits on triggered and generated images (ATClean, Eq. 6), over all test rows."""
        return update_dof(batch, metrics["dof"], self.net, self.generator)


class TriggerEvaluation(Evaluation):
    """Compare a recovered trigger with the attack's, seen by the suspect it was inverted from: FD, and the target.

    FD is over the test images that count in ASR. ``target_found`` says whether the class that the inversion names is
    the attack's, 1 or 0; its mean over runs is DSR. It is left out where no single class is the attack's.

    Args:
        bundle: Path of a trigger bundle.
    """

    def __init__(self, bundle: str) -> None:
        super().__init__(bundle)

    def metrics(self) -> dict[str, Metric]:
        """Measure FD."""
        return {"feature_distance": FeatureDistance()}

    def build(self) -> None:
        """Open the trigger and its suspect."""
        self.trigger = Frozen(self.open("bundle", "trigger"))
        self.given(suspect=str(input_of(self._sources["bundle"], "suspect").path))
        self.net = Frozen(self.open_classifier())

    def evaluate(self, batch: Batch, metrics: Any) -> list[str]:
        """Compare features of truly triggered images and of those with the recovered trigger."""
        return update_feature_distance(batch, metrics["feature_distance"], self.net.module, self.trigger)

    def on_test_epoch_end(self) -> None:
        """Compare the named class with the attack's."""
        attack, named = self.data.attack, self._sources["bundle"].numbers.get("target_class")
        if attack is not None and named is not None and attack.single_target is not None:
            self.log("test/target_found", float(named == attack.target))


def update_feature_distance(batch: Batch, metric: Metric, suspect: Classifier, trigger: nn.Module) -> list[str]:
    """Update FD by one batch: S_a of the rows that count in ASR, truly triggered and with the recovered trigger.

    There is none where rows carry the trigger themselves: no image is there without it to stamp.
    """
    if "original" not in batch:  # the clean view, or a trigger that is not stamped
        return []
    recovered = suspect.features(trigger(batch["original"]))
    metric.update(recovered.float(), suspect.features(batch["image"]).float(), batch["valid"] & batch["eligible"])
    return ["feature_distance"]


class SelectionEvaluation(Evaluation):
    """Compare a selection with the attack's plan: precision, recall and F1 of poisoned rows.

    Args:
        bundle: Path of a selection bundle.
    """

    def __init__(self, bundle: str) -> None:
        super().__init__(bundle)

    def metrics(self) -> dict[str, Metric]:
        """Measure precision, recall, F1."""
        return {}

    def build(self) -> None:
        """Open the selection."""
        self.selected = open_bundle(str(self._given["bundle"]), "selection").tensors()["indices"]
        self.scores = SelectionScores()

    def logits(self, images: Tensor) -> Tensor:
        """Refuse: there is no classifier in a selection."""
        return Stage.logits(self, images)

    def evaluate(self, batch: Batch, metrics: Any) -> list[str]:
        """Do nothing with test images: a selection is about training rows."""
        return []

    def on_test_epoch_end(self) -> None:
        """Compare with the plan, where there is an attack."""
        if self.data.attack is None:
            return
        questioned = self.data.get_view("questioned")
        self.scores.update(torch.isin(questioned.index, self.selected), questioned.role == Role.POISON)
        for name, value in self.scores.compute().items():
            self.log(f"test/selection_{name}", value)


class DetectorEvaluation(InputDetection):
    """Test a detector of triggered inputs: precision, recall, F1, AUROC.

    Args:
        bundle: Path of a detector bundle.
    """

    views: ClassVar[tuple[str, ...]] = ()
    given_kind: ClassVar[str] = "detector"

    def __init__(self, bundle: str) -> None:
        super().__init__(bundle)


class TargetEvaluation(Evaluation):
    """Compare the classes that a detector flags with the attack's, and the trigger that it inverted, if it did: FD.

    ``target_found`` says whether the attack's class is flagged and no other, ``target_top`` whether it is the most
    suspicious one, 1 or 0; both are left out where no single class is the attack's. ``flagged_classes`` counts them. FD
    is `TriggerEvaluation`'s, of the flagged classes' triggers, or else of the top class's.

    Args:
        bundle: Path of a bundle of target classes.
    """

    def __init__(self, bundle: str) -> None:
        super().__init__(bundle)

    def metrics(self) -> dict[str, Metric]:
        """Measure FD; it is not logged where no trigger was inverted."""
        return {"feature_distance": FeatureDistance()}

    def build(self) -> None:
        """Open the report, and the trigger with its suspect where there is one."""
        self.report = open_bundle(str(self._given["bundle"]), "targets")
        self.flagged = list(read_report(self.report).flagged)
        self.trigger = None
        if self.report.info["model"] is not None:
            self.trigger = Frozen(self.report.build())
            self.given(suspect=str(input_of(self.report, "suspect").path))
            self.net = Frozen(self.open_classifier())

    def logits(self, images: Tensor) -> Tensor:
        """Refuse: there is no classifier in a report."""
        return Stage.logits(self, images)

    def evaluate(self, batch: Batch, metrics: Any) -> list[str]:
        """Compare features of truly triggered images and of those with the inverted trigger."""
        if self.trigger is None:
            return []
        return update_feature_distance(batch, metrics["feature_distance"], self.net.module, self.trigger)

    def on_test_epoch_end(self) -> None:
        """Compare with the attack, where one class is its target."""
        attack = self.data.attack
        self.log("test/flagged_classes", float(len(self.flagged)))
        if attack is not None and attack.single_target is not None:
            self.log("test/target_found", float(self.flagged == [attack.target]))
            self.log("test/target_top", float(self.report.numbers.get("top_class") == attack.target))


class PerturbationEvaluation(TargetEvaluation):
    """Compare a detector's latent perturbations with what the true trigger changes, beside the classes it flags.

    Over the test images that count in ASR, for the attack's class: ``tac_cosine``, ``tac_rank_correlation`` and
    ``tac_precision_1`` to ``_10``; ``tac_cosine_other`` is the largest cosine of any other class (see
    `TacFidelity`). NaN where no single class is the attack's, or rows carry the trigger themselves: then nobody knows
    what it changes.

    Args:
        bundle: Path of a bundle of target classes with perturbations.
    """

    def build(self) -> None:
        """Open the report and its suspect."""
        super().build()
        self.given(suspect=str(input_of(self.report, "suspect").path))
        self.net = Frozen(self.open_classifier())
        self.fidelity = TacFidelity(self.report.tensors()["perturbations"])

    def evaluate(self, batch: Batch, metrics: Any) -> list[str]:
        """Add the latents of the rows that count, triggered and clean."""
        if "original" in batch:
            triggered, clean = (latents_and_logits(self.net.module, batch[k])[0] for k in ("image", "original"))
            self.fidelity.update(triggered, clean, batch["valid"] & batch["eligible"])
        return []

    def on_test_epoch_end(self) -> None:
        """Log the numbers of the attack's class."""
        super().on_test_epoch_end()
        attack = self.data.attack
        known = attack is not None and attack.trigger.stamps and attack.single_target is not None
        names = ("cosine", "rank_correlation", "precision_1", "precision_5", "precision_10")
        found = dict.fromkeys((*names, "cosine_other"), torch.tensor(torch.nan))
        if known:
            fidelity = self.fidelity.compute()
            found |= {name: fidelity[name][attack.target] for name in names}
            others = torch.arange(len(fidelity["cosine"])) != attack.target
            cosines = fidelity["cosine"].cpu()[others]
            cosines = cosines[cosines.isfinite()]
            found["cosine_other"] = cosines.max() if len(cosines) else torch.tensor(torch.nan)
        self.fidelity.reset()
        self.log_dict({f"test/tac_{name}": value for name, value in found.items()})


def input_of(bundle: Bundle, name: str) -> Bundle:
    """Open a bundle that another one was made from.

    Raises:
        ValueError: If it is not there any more, or is another one by now.
    """
    noted = bundle.info["inputs"].get(name)
    if noted is None:
        raise ValueError(f"The bundle {bundle.path} does not say from which {name} it was made.")
    source = open_bundle(bundle.path / noted["path"])
    if source.hash != noted["hash"]:
        raise ValueError(f"The {name} at {source.path} is not the one that {bundle.path} was made from. Make it anew.")
    return source


def evaluation_of(path: str) -> Stage:
    """Make the evaluation that fits a bundle's kind.

    Raises:
        ValueError: If there is nothing to test about that kind.
    """
    bundle = open_bundle(path)
    if bundle.kind not in TESTED:
        raise ValueError(f"There is no test of a bundle of kind '{bundle.kind}'. Kinds with one: {', '.join(TESTED)}.")
    return TESTED[bundle.kind](path)


def _evaluation_of_targets(path: str) -> Stage:
    with_perturbations = "perturbations" in open_bundle(path, "targets").tensors()
    return PerturbationEvaluation(path) if with_perturbations else TargetEvaluation(path)


TESTED: dict[str, Callable[[str], Stage]] = {
    "suspect": Evaluation,
    "generator": GeneratorEvaluation,
    "selection": SelectionEvaluation,
    "trigger": TriggerEvaluation,
    "detector": DetectorEvaluation,
    "targets": _evaluation_of_targets,
}
