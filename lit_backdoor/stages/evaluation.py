"""Evaluation of bundles: every number of a result comes from here, in one process, never from the run that trained."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torchmetrics import Metric

from lit_backdoor.bundle import Bundle, open_bundle
from lit_backdoor.metrics import DegreeOfFeatureCollisions, FeatureDistance, selection_scores
from lit_backdoor.models import Classifier, Frozen
from lit_backdoor.stages.base import Batch, Stage
from lit_backdoor.stages.generator_training import update_dof
from lit_backdoor.stages.input_detection import InputDetection
from lit_backdoor.stages.inputs import Takes
from lit_backdoor.triggers import Role, stamped_by

__all__ = [
    "BundleEvaluation",
    "DetectorEvaluation",
    "Evaluation",
    "GeneratorEvaluation",
    "SelectionEvaluation",
    "TriggerEvaluation",
    "input_of",
    "update_feature_distance",
]


class Evaluation(Stage):
    """Test a suspect on the clean and the triggered view: ACC, ASR, RA, and ACC on the attack's class.

    Args:
        bundle: Path of a suspect bundle, or a classifier.
    """

    views: ClassVar[tuple[str, ...]] = ("clean",)
    takes: ClassVar[Takes] = {**Stage.takes, "bundle": ("suspect",)}

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


class BundleEvaluation(Evaluation):
    """Test what is no suspect itself, as its suspect sees it.

    Args:
        bundle: Path of a bundle of the kind that the subclass takes.
    """

    def __init__(self, bundle: str) -> None:
        super().__init__(bundle)

    def open_suspect_of(self, bundle: Bundle) -> None:
        """Open the suspect that a bundle was made from."""
        self.given(suspect=str(input_of(bundle, "suspect").path))
        self.net = Frozen(self.open_classifier())


class GeneratorEvaluation(BundleEvaluation):
    """Test a generator against the suspect it was trained on, which its bundle names: DoF.

    Args:
        bundle: Path of a generator bundle.
    """

    takes: ClassVar[Takes] = {**Stage.takes, "bundle": ("generator",)}

    def metrics(self) -> dict[str, Metric]:
        """Measure DoF."""
        return {"dof": DegreeOfFeatureCollisions()}

    def build(self) -> None:
        """Open the generator and its suspect."""
        self.generator = Frozen(self.open("bundle"))
        self.open_suspect_of(self.sources["bundle"])

    def evaluate(self, batch: Batch, metrics: Any) -> list[str]:
        """Compare logits on triggered and generated images (ATClean, Eq. 6), over all test rows."""
        return update_dof(batch, metrics["dof"], self.net, self.generator)


class TriggerEvaluation(BundleEvaluation):
    """Compare a recovered trigger with the attack's, seen by the suspect it was inverted from: FD, and the target.

    FD is over the test images that count in ASR. ``target_found`` says whether the class that the inversion names is
    the attack's, 1 or 0; its mean over runs is DSR. It is left out where no single class is the attack's.

    Args:
        bundle: Path of a trigger bundle.
    """

    takes: ClassVar[Takes] = {**Stage.takes, "bundle": ("trigger",)}

    def metrics(self) -> dict[str, Metric]:
        """Measure FD."""
        return {"feature_distance": FeatureDistance()}

    def build(self) -> None:
        """Open the trigger and its suspect."""
        self.trigger = Frozen(self.open("bundle"))
        self.open_suspect_of(self.sources["bundle"])

    def evaluate(self, batch: Batch, metrics: Any) -> list[str]:
        """Compare features of truly triggered images and of those with the recovered trigger."""
        return update_feature_distance(batch, metrics["feature_distance"], self.net.module, self.trigger.module)

    def on_test_epoch_end(self) -> None:
        """Compare the named class with the attack's."""
        attack, named = self.data.attack, self.sources["bundle"].numbers.get("target_class")
        if attack is not None and named is not None and attack.single_target is not None:
            self.log("test/target_found", float(named == attack.target))


def update_feature_distance(batch: Batch, metric: Metric, suspect: Classifier, trigger: nn.Module) -> list[str]:
    """Update FD by one batch: S_a of the rows that count in ASR, truly triggered and with the recovered trigger.

    There is none where rows carry the trigger themselves: no image is there without it to stamp.
    """
    if "original" not in batch:  # the clean view, or a trigger that is not stamped
        return []
    recovered = suspect.features(stamped_by(trigger, batch["original"], batch["index"]))
    metric.update(recovered.float(), suspect.features(batch["image"]).float(), batch["valid"] & batch["eligible"])
    return ["feature_distance"]


class SelectionEvaluation(BundleEvaluation):
    """Compare a selection with the attack's plan: precision, recall and F1 of poisoned rows.

    Args:
        bundle: Path of a selection bundle.
    """

    takes: ClassVar[Takes] = {**Stage.takes, "bundle": ("selection",)}

    def metrics(self) -> dict[str, Metric]:
        """Measure precision, recall, F1."""
        return {}

    def build(self) -> None:
        """Open the selection."""
        self.selected = open_bundle(str(self._given["bundle"]), self.takes["bundle"]).tensors()["indices"]

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
        found = selection_scores(torch.isin(questioned.index, self.selected), questioned.role == Role.POISON)
        for name, value in found.items():
            self.log(f"test/selection_{name}", value)


class DetectorEvaluation(InputDetection):
    """Test a detector of triggered inputs: precision, recall, F1, AUROC.

    Args:
        bundle: Path of a detector bundle.
    """

    views: ClassVar[tuple[str, ...]] = ()
    takes: ClassVar[Takes] = {"purified": ("detector",)}

    def __init__(self, bundle: str) -> None:
        super().__init__(bundle)


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
