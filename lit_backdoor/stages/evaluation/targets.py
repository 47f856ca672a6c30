"""Evaluation of what a detector of target classes says: the classes, triggers that it inverted, perturbations."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from lit_backdoor.metrics import TacFidelity
from lit_backdoor.models import Classifier
from lit_backdoor.models.latents import latents_and_logits
from lit_backdoor.stages.evaluation.base import Evaluator
from lit_backdoor.stages.evaluation.trigger import TriggerEvaluator
from lit_backdoor.stages.inputs import Batch

__all__ = ["PerturbationEvaluator", "TargetEvaluator"]


class TargetEvaluator(Evaluator):
    """Compare the classes that a detector flags with the attack's, and the trigger that it inverted, if it did: FD.

    ``flagged_classes`` counts them. ``target_found`` says whether the attack's class is flagged and no other,
    ``target_top`` whether it is the most suspicious one, 1 or 0; both are left out where no single class is the
    attack's. FD is `TriggerEvaluator`'s, of the flagged classes' triggers, or else of the top class's.

    Args:
        data: The data module of the run.
        flagged: The classes that are flagged.
        top: The most suspicious class; None where that is not known.
        suspect: The classifier that was judged; needed with a trigger.
        trigger: The trigger that was inverted; None where none was.
    """

    def __init__(
        self,
        data: Any,
        flagged: Sequence[int],
        top: int | None,
        suspect: Classifier | None = None,
        trigger: nn.Module | None = None,
    ) -> None:
        super().__init__(data)
        self.flagged = list(flagged)
        self.top = top
        self.inverted = Evaluator(data)
        if suspect is not None and trigger is not None:
            self.inverted = TriggerEvaluator(data, suspect, trigger)

    def to(self, device: torch.device) -> Evaluator:
        """Move the metrics."""
        self.inverted.to(device)
        return super().to(device)

    def update(self, batch: Batch) -> None:
        """Compare features under the true and under the inverted trigger."""
        self.inverted.update(batch)

    def compute(self) -> dict[str, Tensor]:
        """Compare with the attack, where one class is its target."""
        found = {**self.inverted.compute(), "flagged_classes": torch.tensor(float(len(self.flagged)))}
        if self.target is not None:
            found["target_found"] = torch.tensor(float(self.flagged == [self.target]))
            found["target_top"] = torch.tensor(float(self.top == self.target))
        return found


class PerturbationEvaluator(TargetEvaluator):
    """Compare a detector's latent perturbations with what the true trigger changes, and the classes that it flags.

    Over the test images that count in ASR, for the attack's class: ``tac_cosine``, ``tac_rank_correlation`` and
    ``tac_precision_1`` to ``_10``; ``tac_cosine_other`` is the largest cosine of any other class (see
    `TacFidelity`). NaN where no single class is the attack's, or rows carry the trigger themselves: then nobody knows
    what it changes.

    Args:
        data: The data module of the run.
        flagged: The classes that are flagged.
        top: The most suspicious class.
        suspect: The classifier that was judged.
        perturbations: One per class, float ``[C, d]``.
    """

    def __init__(
        self, data: Any, flagged: Sequence[int], top: int | None, suspect: Classifier, perturbations: Tensor
    ) -> None:
        super().__init__(data, flagged, top)
        self.suspect = suspect
        self.fidelity = TacFidelity(perturbations)

    def to(self, device: torch.device) -> Evaluator:
        """Move the metrics."""
        self.fidelity.to(device)
        return super().to(device)

    def update(self, batch: Batch) -> None:
        """Add the latents of the rows that count, triggered and clean."""
        if "original" in batch:
            triggered, clean = (latents_and_logits(self.suspect, batch[key])[0] for key in ("image", "original"))
            self.fidelity.update(triggered, clean, batch["valid"] & batch["eligible"])

    def compute(self) -> dict[str, Tensor]:
        """Add the numbers of the attack's class."""
        names = ("cosine", "rank_correlation", "precision_1", "precision_5", "precision_10")
        found = dict.fromkeys((*names, "cosine_other"), torch.tensor(torch.nan))
        if self.attack is not None and self.target is not None and self.attack.trigger.stamps:
            fidelity = self.fidelity.compute()
            found |= {name: fidelity[name][self.target] for name in names}
            others = torch.arange(len(fidelity["cosine"])) != self.target
            cosines = fidelity["cosine"].cpu()[others]
            cosines = cosines[cosines.isfinite()]
            found["cosine_other"] = cosines.max() if len(cosines) else torch.tensor(torch.nan)
        return super().compute() | {f"tac_{name}": value for name, value in found.items()}
