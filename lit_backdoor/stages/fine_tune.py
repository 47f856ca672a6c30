"""Fine-tuning of a suspect on root data: plain, and with generated triggered images under their true labels."""

from __future__ import annotations

import warnings
from os import PathLike
from typing import Any, ClassVar, Literal, get_args

import torch
from lightning.pytorch.cli import OptimizerCallable
from torch import Tensor
from torch.nn import functional as F

from lit_backdoor.bundle import open_bundle
from lit_backdoor.errors import one_of
from lit_backdoor.models import Classifier, Frozen, UNet
from lit_backdoor.models.base import batch_norms
from lit_backdoor.stages.base import Batch, Outcome, Stage
from lit_backdoor.stages.inputs import Takes
from lit_backdoor.stages.optim import Schedule, scheduled
from lit_backdoor.triggers import Trigger, stamped_by

__all__ = ["FineTune", "UnlearningFineTune"]


class FineTune(Stage):
    """Fine-tune every weight of a suspect on clean root data; the control beside every defense.

    Root images from elsewhere, whose classes are not the suspect's, get the labels that the suspect gives them.

    Args:
        suspect: Path of a suspect bundle, or a classifier (a copy of it is tuned).
        optimizer: Makes the optimizer; default Adam 1e-4.
        schedule: What the learning rate does over the run.
        batch_norm: ``train`` uses and updates batch statistics, ``eval`` keeps the suspect's running ones.

    Raises:
        ValueError: If an option is unknown.
    """

    def __init__(
        self,
        suspect: str | Classifier,
        optimizer: OptimizerCallable = lambda p: torch.optim.Adam(p, lr=1e-4),
        schedule: Schedule = "constant",
        batch_norm: Literal["train", "eval"] = "train",
    ) -> None:
        super().__init__()
        self.given(suspect=suspect)
        self.optimizer = optimizer
        self.schedule = one_of("schedule", schedule, get_args(Schedule))
        self.batch_norm = one_of("batch_norm", batch_norm, ("train", "eval"))
        self._begun = -1  # the last epoch that began in this process

    def build(self) -> None:
        """Open the suspect and take its gradients on."""
        self.classifier = self.open_classifier().requires_grad_(True).train()

    def configure_optimizers(self) -> Any:
        """Make the optimizer and its schedule; an idle run has none: torch would warn of no step."""
        optimizer = self.optimizer(self.classifier.parameters())
        return optimizer if self.idle else scheduled(self, optimizer, self.schedule)

    @property
    def idle(self) -> bool:
        """Whether there is nothing to do, such as where a detector flagged no class: the suspect stays as it is."""
        return False

    def on_fit_start(self) -> None:
        """Say where there is nothing to do."""
        super().on_fit_start()
        if self.idle:
            warnings.warn("No class was flagged: the suspect goes on unchanged.", stacklevel=2)

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> int | None:
        """Skip every epoch, by Lightning's -1, where there is nothing to do."""
        if self._begun != self.current_epoch:  # Lightning skips the hook where a run resumes after an epoch's last step
            self.on_train_epoch_start()
        super().on_train_batch_start(batch, batch_idx)  # seeds the step, so nothing may be drawn after it
        return -1 if self.idle else None

    def on_train_epoch_start(self) -> None:
        """Set the mode of batch norm, which Lightning's train mode would undo."""
        self._begun = self.current_epoch
        if self.batch_norm == "eval":
            for norm in batch_norms(self.classifier):
                norm.eval()

    def logits(self, images: Tensor) -> Tensor:
        """Classify by the suspect as tuned so far."""
        return self.classifier(images)  # type: ignore[no-any-return]

    def lesson(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Give the images and labels to learn from."""
        return batch["image"], batch["label"]

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Learn from one batch."""
        images, labels = self.lesson(batch)
        loss = F.cross_entropy(self.classifier(images).float(), labels)
        self.log_train(len(images), loss=loss)
        return loss

    def outcome(self) -> Outcome:
        """Hand on the tuned classifier."""
        return Outcome(module=self.classifier)


class UnlearningFineTune(FineTune):
    """Fine-tune a suspect on generated triggered images under their true labels (ATClean, Eq. 4).

    Where a detector of target classes flagged none, there is nothing to unlearn: the suspect is handed on as it is.

    Args:
        suspect: Path of a suspect bundle, or a classifier (a copy of it is tuned).
        generator: Path of a bundle of a generator, an inverted trigger or target classes with one, or a net from images
            to triggered images; frozen.
        mix: ``generated``: each image is replaced by its generated one (the equation to the letter); ``mixed``: half of
            each batch is; ``both``: every image comes twice, clean and generated (what works at small scale).
        optimizer: Makes the optimizer; default Adam 1e-4, ATClean's for CIFAR-10.
        schedule: What the learning rate does over the run.
        batch_norm: ``train`` uses and updates batch statistics, ``eval`` keeps the suspect's running ones.

    Raises:
        ValueError: If an option is unknown.
    """

    takes: ClassVar[Takes] = {
        **FineTune.takes,
        "generator": ("generator", "trigger", "targets"),
    }

    def __init__(
        self,
        suspect: str | Classifier,
        generator: str | UNet | Trigger,
        mix: Literal["generated", "mixed", "both"] = "both",
        optimizer: OptimizerCallable = lambda p: torch.optim.Adam(p, lr=1e-4),
        schedule: Schedule = "constant",
        batch_norm: Literal["train", "eval"] = "train",
    ) -> None:
        super().__init__(suspect, optimizer, schedule, batch_norm)
        self.given(generator=generator)
        self.mix = one_of("mix", mix, ("generated", "mixed", "both"))

    def build(self) -> None:
        """Open the suspect and the generator."""
        super().build()
        given = self._given["generator"]
        report = open_bundle(given, self.takes["generator"]) if isinstance(given, str | PathLike) else None
        if report is not None and report.kind == "targets" and report.numbers.get("target_class") is None:
            self.sources["generator"], self.maker = report, None
        else:
            self.maker = Frozen(self.open("generator"))

    @property
    def idle(self) -> bool:
        """Whether there is no trigger to unlearn."""
        return self.maker is None

    def stamped(self, images: Tensor, index: Tensor) -> Tensor:
        """Give the images with the trigger; ``index`` are their rows."""
        assert self.maker is not None  # without one no batch comes this far
        return stamped_by(self.maker.module, images, index)

    def lesson(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Put generated images into the batch."""
        images, labels, index = batch["image"], batch["label"], batch["index"]
        if self.mix == "generated":
            return self.stamped(images, index), labels
        if self.mix == "mixed":
            half = (len(images) + 1) // 2
            return torch.cat((self.stamped(images[:half], index[:half]), images[half:])), labels
        return torch.cat((images, self.stamped(images, index))), labels.repeat(2)

    def outcome(self) -> Outcome:
        """Hand on the tuned classifier, and the class that was unlearned, where a detector named it or found none."""
        source = self.sources.get("generator")
        named = source.numbers if source is not None and source.kind == "targets" else {}
        return Outcome(self.classifier, numbers={k: named[k] for k in ("target_class",) if k in named})
