"""PGBD: fine-tune a suspect while its activations are kept from moving toward the target class (Eq. 1 to 4)."""

from __future__ import annotations

import math
from abc import abstractmethod
from typing import Any, Literal

import torch
from lightning.pytorch.cli import OptimizerCallable
from torch import Tensor
from torch.nn import functional as F

from lit_backdoor.defenses.pgbd.settings import Geometry
from lit_backdoor.errors import one_of, settings
from lit_backdoor.functional.prototypes import class_prototypes, prototype_vectors, sanitization_loss, smoothed
from lit_backdoor.models import Classifier
from lit_backdoor.models.latents import check_final_linear
from lit_backdoor.stages.activations import ActivationSpace, Stamp
from lit_backdoor.stages.averaged import AveragedFineTune
from lit_backdoor.stages.base import Batch
from lit_backdoor.stages.optim import Schedule
from lit_backdoor.stages.rules import check_finite

__all__ = ["PrototypeFineTune"]


def paper_optimizer(parameters: Any) -> torch.optim.Optimizer:
    """Make the paper's optimizer: SGD 1e-4 with momentum .9 and weight decay 1e-4."""
    return torch.optim.SGD(parameters, lr=1e-4, momentum=0.9, weight_decay=1e-4)


class PrototypeFineTune(AveragedFineTune):
    """Fine-tune a suspect on root data, and penalize movement of activations along vectors from prototypes.

    A subclass says which vectors these are: to the prototypes of the classes that `find_leads` names, or others, by
    `make_vectors`. Prototypes and vectors are rebuilt from the whole root set, in eval mode and without augmentation,
    at the start of every `Geometry.update`-th epoch, and kept in the checkpoint in between.

    Deviations from the paper: the last linear layer stays as it is by default: where it was tuned, the backdoor came
    back within a few epochs. Weights are averaged over the last epoch's steps, which differ much where the loss's
    weight is large. With several targets their losses are added. The release takes absolute cosines and their sum over
    batches of 16 (``form: abs``, ``reduction: sum``).

    Args:
        suspect: Path of a suspect bundle, or a classifier (a copy of it is tuned).
        weight: Weight lambda of the sanitization loss. Paper: 10.
        form: ``cos`` (paper) or ``abs`` (release).
        reduction: ``mean`` over the batch, or ``sum`` (release).
        geometry: Where prototypes are taken, and when they are rebuilt.
        optimizer: Makes the optimizer; default the paper's SGD 1e-4, momentum .9, weight decay 1e-4.
        schedule: What the learning rate does over the run. Paper: constant.
        batch_norm: ``eval`` tunes the suspect in eval mode, without dropout and with its running statistics (release);
            ``train`` uses and updates batch statistics.
        head: ``frozen`` keeps the last linear layer as it is (ours); ``tuned`` tunes it, too (paper).
        average: The last epochs over whose steps weights are averaged (ours); 0 takes the last step's (paper).

    Raises:
        ValueError: If an option is unknown, or the weight is negative; when run, if the root set lacks images of a
            class that others are led to, or the layer to freeze is not the one that gives the logits.
    """

    leads: Tensor
    prototypes: Tensor
    vectors: Tensor

    def __init__(
        self,
        suspect: str | Classifier,
        weight: float = 1.0,
        form: Literal["cos", "abs"] = "cos",
        reduction: Literal["mean", "sum"] = "mean",
        geometry: Geometry | None = None,
        optimizer: OptimizerCallable = paper_optimizer,
        schedule: Schedule = "constant",
        batch_norm: Literal["train", "eval"] = "eval",
        head: Literal["frozen", "tuned"] = "frozen",
        average: int = 1,
    ) -> None:
        super().__init__(suspect, optimizer, schedule, batch_norm, average)
        if isinstance(weight, str) or not 0 <= weight < math.inf:
            raise ValueError(f"Expected weight to be 0 or more, got {weight!r}.")
        self.head = one_of("head", head, ("frozen", "tuned"))
        self.weight = weight
        self.form = one_of("form", form, ("cos", "abs"))
        self.reduction = one_of("reduction", reduction, ("mean", "sum"))
        self.geometry = settings("geometry", geometry, Geometry) or Geometry()

    # Override in subclasses.

    @abstractmethod
    def find_leads(self) -> Tensor:
        """Say where each class is led, int64 ``[T, C]``: a row for each target, none where there is no target."""
        raise NotImplementedError

    def make_vectors(self, prototypes: Tensor, current: Tensor) -> Tensor:
        """Make the vectors to keep away from, ``[T, C, d]``, of prototypes and those of the net as it is by now."""
        return prototype_vectors(prototypes, self.leads)

    @property
    def gap(self) -> int:
        """Epochs between rebuildings; 0 for none after the first."""
        return self.geometry.update

    @property
    def needed(self) -> Tensor:
        """Classes that must have root images."""
        return self.leads

    @property
    def strength(self) -> float | Tensor:
        """What the sanitization loss is multiplied by."""
        return self.weight

    # The run.

    def build(self) -> None:
        """Open the suspect and make room for prototypes and vectors."""
        super().build()
        if self.head == "frozen":
            self._freeze_head()
        self.space = ActivationSpace.of(self.classifier, self.geometry.layer, self.geometry.pooled)
        self.register_buffer("leads", self.find_leads(), persistent=False)
        prototypes = torch.zeros(self.classifier.num_classes, self.space.shape.numel())
        self.register_buffer("prototypes", prototypes)
        self.register_buffer("vectors", prototypes.repeat(len(self.leads), 1, 1))

    def _freeze_head(self) -> None:
        try:
            check_final_linear(self.classifier)  # else another linear layer would be frozen in its place
            self.classifier.final_linear.requires_grad_(False)
        except ValueError as error:
            raise ValueError(f"{error} To tune all layers set model.init_args.head=tuned.") from error

    @property
    def idle(self) -> bool:
        """Whether no class was flagged."""
        return not len(self.leads)

    def begin_epoch(self) -> None:
        """Set the modes, and rebuild prototypes and vectors where that is due."""
        super().begin_epoch()
        if self.batch_norm == "eval":
            self.classifier.eval()
        first = self.current_epoch == 0
        if len(self.leads) and (first or (self.gap and self.current_epoch % self.gap == 0)):
            self.rebuild(0 if first else self.current_epoch // self.gap)

    def rebuild(self, number: int) -> None:
        """Compute prototypes and vectors anew and weigh them against those before.

        Args:
            number: How many rebuildings came before this one.
        """
        of_prototypes, of_vectors = self.geometry.weights(number)
        current = self.root_prototypes()
        prototypes = smoothed(current, self.prototypes, of_prototypes)
        vectors = self.make_vectors(prototypes, current)
        self.prototypes.copy_(prototypes)
        self.vectors.copy_(smoothed(vectors, self.vectors, of_vectors))

    def root_prototypes(self, stamp: Stamp | None = None) -> Tensor:
        """Compute the prototypes of root images, ``[C, d]``, or of root images with a trigger.

        Raises:
            ValueError: If a class that others are led to has no root image.
            DivergedError: If activations are not finite.
        """
        features, labels = self.space.of_root(self, stamp)
        if features.shape[1:] != self.space.shape:
            side = self.classifier.input_size
            raise ValueError(
                f"Expected root images of the suspect's size, {side}x{side}, whose activations are "
                f"{list(self.space.shape)}, got activations {list(features.shape[1:])}. Bring the data to that size."
            )
        check_finite(self, features, "activations")
        found = class_prototypes(features, labels, len(self.prototypes), self.geometry.centroids, self.seed)
        missing = set(found[:, 0].isnan().nonzero().flatten().tolist()) & set(self.needed.flatten().tolist())
        if missing:
            raise ValueError(
                f"Expected root images of every target class, got none of {sorted(missing)}: without their prototypes "
                "there is no direction to keep away from. Give the root set images of them (data.split.root_pool)."
            )
        return found.nan_to_num()  # zeros will do: a class without images is in no batch

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Compute Eq. 4 on one batch of root images."""
        own, kept = self.terms(batch["image"], batch["label"])
        return {"loss": own + self.strength * kept, "classification": own, "sanitization": kept}

    def terms(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Compute the two terms of Eq. 4: classification and sanitization."""
        logits, features = self.space(images)
        kept = sanitization_loss(features, labels, self.prototypes, self.vectors, self.form, self.reduction)
        return F.cross_entropy(logits.float(), labels), kept
