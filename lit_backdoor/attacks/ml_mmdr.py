"""ML-MMDR: the adaptive attack that trains until poisoned rows look like clean ones inside the net (PGBD, Table 3).

Xia et al., "Enhancing Backdoor Attacks with Multi-Level MMD Regularization", IEEE TDSC 2022 (arXiv:2111.05077).
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from lightning.pytorch.cli import OptimizerCallable
from torch import Tensor

from lit_backdoor.functional.collision import mmd2
from lit_backdoor.models import Classifier
from lit_backdoor.stages.base import Batch
from lit_backdoor.stages.optim import Schedule, sgd_from_scratch
from lit_backdoor.stages.poisoned_training import PoisonedTraining
from lit_backdoor.triggers import Role

__all__ = ["MultiLevelMMDTraining"]

LEVELS = (0.5, 0.75, 1.0)


class MultiLevelMMDTraining(PoisonedTraining):
    r"""Attack by ML-MMDR: train a suspect whose features of poisoned rows are like those of clean rows of their label.

    .. math:: \ell = \ell_\text{CE} + \lambda \sum_l \mathrm{MMD}^2\bigl(h_l(X_\text{poison}), h_l(X_\text{clean})\bigr)

    The clean rows are those of the target class, as in the release: a detector compares rows of one label. Where the
    attack gives several labels, they are the clean rows of all labels that the batch's poisoned rows bear. Covers are
    on neither side. Features are whole outputs of layers, flattened; kernels are `mmd2`'s, which are the release's. A
    batch without poisoned rows, or without clean rows of their labels, is learned from by cross-entropy alone.

    Deviations: nets are of any kind, so levels go by depth. The release compares outputs of the 4th, 6th and 8th ReLU
    of VGG-11, which has eight; here it is the blocks (else the convolutions) as far down. It poisons no row of the
    target class; here the attack's policy decides.

    Args:
        classifier: The net to train.
        layers: Layers whose outputs are compared, as `Classifier.layer_names` has them; None for the blocks at half,
            three quarters and all of the net's depth.
        weight: Weight lambda of the regularizer, >= 0. Release: 0.1.
        optimizer: Makes the optimizer; default SGD, Nesterov .9, learning rate .1, weight decay 5e-4.
        schedule: What the learning rate does over the run.
        label_smoothing: Share of the label's mass spread over all classes, in [0, 1).

    Raises:
        ValueError: If ``weight`` is negative or ``layers`` is empty; when run, if there is no attack, or a layer is
            unknown or has to be named.
    """

    def __init__(
        self,
        classifier: Classifier,
        layers: list[str] | None = None,
        weight: float = 0.1,
        optimizer: OptimizerCallable = sgd_from_scratch,
        schedule: Schedule = "one_cycle",
        label_smoothing: float = 0.0,
    ) -> None:
        super().__init__(classifier, optimizer, schedule, label_smoothing)
        if not weight >= 0:
            raise ValueError(f"Expected weight to be 0 or more, got {weight}.")
        if layers is not None and not layers:
            raise ValueError("Expected layers to name at least one layer, got none. Leave it out for the default.")
        self.layers = layers
        self.weight = weight

    def build(self) -> None:
        """Find the layers."""
        self.levels = self.layers or _levels(self.classifier)

    def on_fit_start(self) -> None:
        """Check that there is an attack."""
        super().on_fit_start()
        if self.data.attack is None:
            raise ValueError("Expected data.attack to be set: without poisoned rows there is nothing to hide.")

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Compute the loss on one poisoned batch."""
        labels = batch["label"]
        logits, features = self.classifier.logits_and_taps(batch["image"], self.levels)
        own, gap = self.criterion(logits.float(), labels), self.gap(list(features.values()), labels, batch["role"])
        right = (logits.argmax(1) == labels).float().mean()
        return {"loss": own + self.weight * gap, "classification": own, "mmd": gap, "acc": right}

    def gap(self, features: list[Tensor], labels: Tensor, roles: Tensor) -> Tensor:
        """Add the levels' squared MMD between poisoned rows and clean ones of their labels.

        Args:
            features: Outputs of the layers, each ``[B, ...]``.
            labels: The labels that rows are trained with, int64 ``[B]``.
            roles: What the attacker did to them, int8 ``[B]``.

        Returns:
            Float32 scalar; 0 where one side has no row.
        """
        poisoned = roles == Role.POISON
        clean = (roles == Role.CLEAN) & torch.isin(labels, labels[poisoned])
        if not clean.any():  # nor is there any where no row is poisoned
            return torch.zeros((), device=labels.device)
        return torch.stack([mmd2(level[poisoned].flatten(1), level[clean].flatten(1)) for level in features]).sum()


def _levels(classifier: Classifier) -> list[str]:
    """Name the blocks, else the convolutions, at half, three quarters and all of a net's depth."""
    kinds: tuple[Literal["block", "conv"], ...] = ("block", "conv")
    for kind in kinds:
        try:
            found = classifier.last_layers(len(classifier.layer_names()), kind)[::-1]
        except ValueError:  # a net without any
            continue
        return list(dict.fromkeys(found[math.ceil(part * len(found)) - 1] for part in LEVELS))
    raise ValueError(
        f"Expected a net with blocks or convolutions, got {type(classifier.net).__name__}. Name layers to compare: "
        f"--model.layers, from {', '.join(classifier.layer_names()[-6:])}."
    )
