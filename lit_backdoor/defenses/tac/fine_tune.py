"""Fine-tuning that makes the detected class's perturbation harmless."""

from __future__ import annotations

from typing import Any, Literal

import torch
from lightning.pytorch.cli import OptimizerCallable
from torch import Tensor
from torch.nn import functional as F
from torch.optim import SGD, Optimizer

from lit_backdoor.defenses.tac.program import Program, perturbations_given, root_latents
from lit_backdoor.errors import settings
from lit_backdoor.functional.latent_shift import movement_along, shifted_loss
from lit_backdoor.models import Classifier, Frozen
from lit_backdoor.models.latents import check_final_linear, latents_and_logits
from lit_backdoor.stages import Batch, FineTune, targets_given
from lit_backdoor.stages.optim import Schedule
from lit_backdoor.stages.rules import check_finite

__all__ = ["TACFineTune", "TACMovementFineTune"]


def gentle_sgd(parameters: Any) -> Optimizer:
    """Make SGD .005 with momentum .9 and weight decay 5e-4."""
    return SGD(parameters, lr=0.005, momentum=0.9, weight_decay=5e-4)


class TACFineTune(FineTune):
    r"""Fine-tune a suspect on clean images, and on their latents shifted by s under the same labels (TAC).

    .. math:: \mathrm{CE}(W \phi(x) + b,\ y) + \beta\, \mathrm{CE}(W (\phi(x) + s_p) + b,\ y)

    over the root set; images of class p have no shifted term. The paper's loss is not public: this is our reading of
    it. With several classes p the shifted term is the mean over all of them. With none, because nothing was flagged,
    the suspect goes on unchanged and ``target_class`` is null.

    Args:
        suspect: Path of a suspect bundle, or a classifier (a copy of it is tuned).
        target: The class p; or the path of a bundle of target classes. Where that holds no perturbations, or the class
            is given by hand, they are computed from the root set when training starts.
        beta: Weight of the shifted term, >= 0. A larger one costs accuracy; a smaller one leaves the backdoor in.
        refresh: Whether s is computed anew from the suspect as tuned so far, at the start of every epoch.
        program: How perturbations are computed here; default `Program`.
        optimizer: Makes the optimizer; default SGD .005, momentum .9, weight decay 5e-4.
        schedule: What the learning rate does over the run.
        batch_norm: ``train`` uses and updates batch statistics, ``eval`` keeps the suspect's running ones.

    Raises:
        ValueError: If ``beta`` is negative, the suspect has no final linear layer, the target is out of range, or its
            bundle is about another suspect.
    """

    perturbations: Tensor
    targets: Tensor

    def __init__(
        self,
        suspect: str | Classifier,
        target: int | str,
        beta: float = 0.6,
        refresh: bool = False,
        program: Program | None = None,
        optimizer: OptimizerCallable = gentle_sgd,
        schedule: Schedule = "cosine",
        batch_norm: Literal["train", "eval"] = "train",
    ) -> None:
        super().__init__(suspect, optimizer, schedule, batch_norm)
        if not beta >= 0:
            raise ValueError(f"Expected beta to be 0 or more, got {beta}.")
        self.given(target=target)
        self.beta = beta
        self.refresh = refresh
        self.program = settings("program", program, Program) or Program()

    def build(self) -> None:
        """Open the suspect and the target."""
        super().build()
        check_final_linear(self.classifier)
        found = targets_given(self, self.classifier.num_classes)
        known = perturbations_given(self, self.classifier)
        chosen = torch.zeros(len(found), self.classifier.final_linear.in_features) if known is None else known[[*found]]
        self._to_solve = known is None
        self.register_buffer("targets", torch.tensor(found, dtype=torch.long))
        self.register_buffer("perturbations", chosen)  # saved, since a resumed run could not compute it again

    def begin_epoch(self) -> None:
        """Compute the perturbations, where they are to be new."""
        super().begin_epoch()
        if len(self.targets) and (self.refresh or (self._to_solve and self.current_epoch == 0)):
            latents = root_latents(self, self.classifier)
            check_finite(self, latents, "latents")
            self.perturbations.copy_(self.program.solve(self.classifier, latents, self.targets.tolist()))

    @property
    def idle(self) -> bool:
        """Whether nothing was flagged."""
        return not len(self.targets)

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Compute the loss on one batch."""
        images, labels = batch["image"], batch["label"]
        latents, logits = latents_and_logits(self.classifier, images)
        plain = F.cross_entropy(logits.float(), labels)
        shifted, logged = self.shifted(images, latents, labels)
        return {"loss": plain + self.beta * shifted, "plain_loss": plain, "shifted_loss": shifted, **logged}

    def shifted(self, images: Tensor, latents: Tensor, labels: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Compute the term that beta weighs, and what is logged with it."""
        last = self.classifier.final_linear
        return shifted_loss(latents, last.weight, last.bias, labels, self.perturbations, self.targets), {}

    def numbers(self) -> dict[str, Any]:
        """Give the classes that were treated and the norms of their perturbations."""
        treated = self.targets.tolist()
        norms = self.perturbations.norm(dim=1).tolist()
        return {"target_class": treated[0] if treated else None, "targets": treated, "norms": norms}


class TACMovementFineTune(TACFineTune):
    """Fine-tune a suspect while its latents may not move along s: another reading of TAC, see `movement_along`.

    It holds clean latents where they are and never sees a shifted one. Arguments as in `TACFineTune`.
    """

    def build(self) -> None:
        """Open the suspect twice: one stays as it is."""
        super().build()
        self.before = Frozen(self.open_classifier())

    def shifted(self, images: Tensor, latents: Tensor, labels: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Penalize movement along the perturbations."""
        with torch.no_grad():
            before = latents_and_logits(self.before.module, images)[0]
        return movement_along(latents, before, self.perturbations), {}
