"""TAC's fine-tune, which also sees the stamps that would move latents along the perturbation (ours)."""

from __future__ import annotations

from typing import Literal

import torch
from lightning.pytorch.cli import OptimizerCallable
from torch import Tensor
from torch.nn import functional as F

from lit_backdoor.defenses.stamp_search import StampSearch
from lit_backdoor.defenses.tac.fine_tune import TACFineTune
from lit_backdoor.defenses.tac.program import Program
from lit_backdoor.functional.latent_shift import distance_along
from lit_backdoor.models import Classifier
from lit_backdoor.models.latents import latents_and_logits
from lit_backdoor.stages import Batch
from lit_backdoor.stages.optim import Schedule

__all__ = ["TACStampFineTune"]


class TACStampFineTune(TACFineTune):
    r"""Fine-tune also on images under the stamp that moves their latents farthest along s; not in the paper.

    .. math:: \mathrm{CE}(f(x), y) + \beta\, \mathrm{CE}(W (\phi(x) + s_p) + b, y) + \omega\, \mathrm{CE}(f(x'), y)

    A fixed s is unlearned where it points, and the trigger's images may go another way: on some seeds Blend stayed. The
    stamp x' of a batch is one change of pixels for all of its images, searched anew (`StampSearch`; omega its weight)
    to maximize `distance_along` s on the net as tuned so far.

    Args:
        suspect: Path of a suspect bundle, or a classifier (a copy of it is tuned).
        target: The class p; or the path of a bundle of target classes.
        beta: Weight of the shifted term, >= 0.
        search: Search of the stamps; default `StampSearch`.
        refresh: Whether s is computed anew at the start of every epoch.
        program: How perturbations are computed here; default `Program`.
        optimizer: Makes the optimizer; default SGD .005, momentum .9, weight decay 5e-4.
        schedule: What the learning rate does over the run.
        batch_norm: ``train`` uses and updates batch statistics, ``eval`` keeps the suspect's running ones.

    Raises:
        ValueError: As `TACFineTune`.
    """

    def __init__(
        self,
        suspect: str | Classifier,
        target: int | str,
        beta: float = 0.6,
        search: StampSearch | None = None,
        refresh: bool = False,
        program: Program | None = None,
        optimizer: OptimizerCallable = lambda p: torch.optim.SGD(p, lr=0.005, momentum=0.9, weight_decay=5e-4),
        schedule: Schedule = "cosine",
        batch_norm: Literal["train", "eval"] = "train",
    ) -> None:
        super().__init__(suspect, target, beta, refresh, program, optimizer, schedule, batch_norm)
        self.search = search or StampSearch()

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Learn from one batch, and from the same stamped."""
        loss = super().training_step(batch, batch_idx)
        images, labels = self.lesson(batch)

        def movement(stamped: Tensor) -> Tensor:
            latents = latents_and_logits(self.classifier, stamped)[0]
            return distance_along(latents, self.perturbations, labels, self.targets)

        logits = self.classifier(self.search.stamped(self.classifier, images, movement))
        of_stamped = F.cross_entropy(logits.float(), labels)
        self.log_train(len(images), stamped_loss=of_stamped.detach())
        return loss + self.search.weight * of_stamped
