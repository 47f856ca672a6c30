"""Fine-tuning of a suspect on triggered images under their true labels."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, ClassVar, Literal

import torch
from lightning.pytorch.cli import OptimizerCallable
from torch import Tensor

from lit_backdoor.errors import check_share
from lit_backdoor.models import Classifier, Frozen, UNet
from lit_backdoor.stages.base import Batch
from lit_backdoor.stages.inputs import Takes
from lit_backdoor.stages.optim import Schedule, adam
from lit_backdoor.stages.repair import FineTune
from lit_backdoor.triggers import Trigger, stamped_by

__all__ = ["GeneratedFineTune", "HalfGeneratedFineTune", "StampedUnlearning", "Unlearning", "UnlearningFineTune"]


class Unlearning(FineTune):
    """Fine-tune a suspect on batches with triggered images under their true labels; a subclass mixes them.

    Where a detector of target classes flagged none, there is nothing to unlearn, and the suspect stays as it is.

    Args:
        suspect: Path of a suspect bundle, or a classifier (a copy of it is tuned).
        generator: Path of a bundle of a generator, an inverted trigger or target classes with one, or a net from images
            to triggered images, or a trigger; frozen.
        optimizer: Makes the optimizer; default Adam 1e-4, ATClean's for CIFAR-10.
        schedule: What the learning rate does over the run.
        batch_norm: ``train`` uses and updates batch statistics, ``eval`` keeps the suspect's running ones.

    Raises:
        ValueError: If an option is unknown.
    """

    takes: ClassVar[Takes] = {**FineTune.takes, "generator": ("generator", "trigger", "targets")}

    def __init__(
        self,
        suspect: str | Classifier,
        generator: str | UNet | Trigger,
        optimizer: OptimizerCallable = adam,
        schedule: Schedule = "constant",
        batch_norm: Literal["train", "eval"] = "train",
    ) -> None:
        super().__init__(suspect, optimizer, schedule, batch_norm)
        self.given(generator=generator)

    def build(self) -> None:
        """Open the suspect, and the generator unless a detector flagged nothing."""
        super().build()
        report = self.bundle("generator")
        nothing = report is not None and report.kind == "targets" and report.numbers.get("target_class") is None
        self.maker = None if nothing else Frozen(self.open("generator"))

    @property
    def idle(self) -> bool:
        """Whether there is no trigger to unlearn."""
        return self.maker is None

    def stamped(self, images: Tensor, index: Tensor) -> Tensor:
        """Give the images with the trigger; ``index`` are their rows."""
        assert self.maker is not None  # without one no batch comes this far
        return stamped_by(self.maker.module, images, index)

    @abstractmethod
    def mixed(self, batch: Batch) -> Batch:
        """Put triggered images into a batch."""
        raise NotImplementedError

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Compute the cross-entropy of the mixed batch."""
        return super().losses(self.mixed(batch))

    def numbers(self) -> dict[str, Any]:
        """Name the class that was unlearned, where a detector named it or found none."""
        source = self.sources.get("generator")
        named = source.numbers if source is not None and source.kind == "targets" else {}
        return {key: named[key] for key in ("target_class",) if key in named}


class UnlearningFineTune(Unlearning):
    """Fine-tune a suspect on every image twice, clean and triggered: what works at small scale.

    With a trigger that is not the attack's it is the motivating experiment of ATClean (Table 1): one trigger under true
    labels removes, or does not remove, another. Arguments as in `Unlearning`.
    """

    def mixed(self, batch: Batch) -> Batch:
        """Add the triggered images."""
        images, labels = batch["image"], batch["label"]
        both = torch.cat((images, self.stamped(images, batch["index"])))
        return {**batch, "image": both, "label": labels.repeat(2)}


class GeneratedFineTune(Unlearning):
    """Fine-tune a suspect on triggered images only, each in the place of its clean one (ATClean, Eq. 4).

    Arguments as in `Unlearning`.
    """

    def mixed(self, batch: Batch) -> Batch:
        """Replace all images."""
        return {**batch, "image": self.stamped(batch["image"], batch["index"])}


class HalfGeneratedFineTune(Unlearning):
    """Fine-tune a suspect on batches whose first half is triggered. Arguments as in `Unlearning`."""

    def mixed(self, batch: Batch) -> Batch:
        """Replace the first half of the images."""
        images, half = batch["image"], (len(batch["image"]) + 1) // 2
        return {**batch, "image": torch.cat((self.stamped(images[:half], batch["index"][:half]), images[half:]))}


class StampedUnlearning(Unlearning):
    """Fine-tune a suspect on root images, a share of them triggered, under true labels (Neural Cleanse, Sec. VI-C).

    Where a detector flagged several classes, each one's trigger is stamped, in turn.

    Deviation from the paper, which stamps one and the same fifth of the images: it is drawn anew for each batch.

    Args:
        suspect: Path of a suspect bundle, or a classifier (a copy of it is tuned).
        generator: Path of a bundle of target classes or of an inverted trigger, or a trigger.
        share: Share of each batch that is triggered, in (0, 1]. Paper: .2.
        optimizer: Makes the optimizer; default Adam 1e-4.
        schedule: What the learning rate does over the run.
        batch_norm: ``train`` uses and updates batch statistics, ``eval`` keeps the suspect's running ones.

    Raises:
        ValueError: If the share is out of range.
    """

    def __init__(
        self,
        suspect: str | Classifier,
        generator: str | Trigger,
        share: float = 0.2,
        optimizer: OptimizerCallable = adam,
        schedule: Schedule = "constant",
        batch_norm: Literal["train", "eval"] = "train",
    ) -> None:
        super().__init__(suspect, generator, optimizer, schedule, batch_norm)
        self.part = check_share("the share of stamped images", share, closed=True)

    def mixed(self, batch: Batch) -> Batch:
        """Stamp a part of the batch, at least one image."""
        images = batch["image"]
        count = max(1, round(self.part * len(images)))
        rows = torch.randperm(len(images))[:count].to(images.device)
        return {**batch, "image": images.index_copy(0, rows, self.stamped(images[rows], batch["index"][rows]))}
