"""Evaluation of what a detector of target classes says: the classes, triggers that it inverted, perturbations."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor
from torchmetrics import Metric

from lit_backdoor.bundle import open_bundle
from lit_backdoor.metrics import FeatureDistance, TacFidelity
from lit_backdoor.models import Frozen
from lit_backdoor.models.latents import latents_and_logits
from lit_backdoor.stages.base import Batch, Stage
from lit_backdoor.stages.evaluation import BundleEvaluation, update_feature_distance
from lit_backdoor.stages.inputs import Takes
from lit_backdoor.stages.target_detection import read_report

__all__ = ["PerturbationEvaluation", "TargetEvaluation"]


class TargetEvaluation(BundleEvaluation):
    """Compare the classes that a detector flags with the attack's, and the trigger that it inverted, if it did: FD.

    ``target_found`` says whether the attack's class is flagged and no other, ``target_top`` whether it is the most
    suspicious one, 1 or 0; both are left out where no single class is the attack's. ``flagged_classes`` counts them. FD
    is `TriggerEvaluation`'s, of the flagged classes' triggers, or else of the top class's.

    Args:
        bundle: Path of a bundle of target classes.
    """

    takes: ClassVar[Takes] = {**Stage.takes, "bundle": ("targets",)}

    def metrics(self) -> dict[str, Metric]:
        """Measure FD; it is not logged where no trigger was inverted."""
        return {"feature_distance": FeatureDistance()}

    def build(self) -> None:
        """Open the report, and the trigger with its suspect where there is one."""
        self.report = open_bundle(str(self._given["bundle"]), self.takes["bundle"])
        self.flagged = list(read_report(self.report).flagged)
        self.trigger = None
        if self.report.info["model"] is not None:
            self.trigger = Frozen(self.report.build())
            self.open_suspect_of(self.report)

    def logits(self, images: Tensor) -> Tensor:
        """Refuse: there is no classifier in a report."""
        return Stage.logits(self, images)

    def evaluate(self, batch: Batch, metrics: Any) -> list[str]:
        """Compare features of truly triggered images and of those with the inverted trigger."""
        if self.trigger is None:
            return []
        return update_feature_distance(batch, metrics["feature_distance"], self.net.module, self.trigger.module)

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
        found = self.report.tensors().get("perturbations")
        if found is None:
            raise ValueError(f"Expected a report with perturbations, such as TAC's, got {self.report.path} without.")
        self.open_suspect_of(self.report)
        self.fidelity = TacFidelity(found)

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
