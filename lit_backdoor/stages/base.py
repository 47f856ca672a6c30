"""The base of every stage: builds its nets once, evaluates on clean and triggered images, leaves one bundle."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal, cast

import numpy as np
import torch
from torch import Tensor, nn
from torchmetrics import Metric

from lit_backdoor import __version__
from lit_backdoor.bundle import save_bundle
from lit_backdoor.data.attack_given import check_attack
from lit_backdoor.errors import DivergedError
from lit_backdoor.metrics import Accuracy, AttackSuccessRate, RobustAccuracy
from lit_backdoor.stages.checkpoint import check_optimizers, check_resumed
from lit_backdoor.stages.inputs import Batch, StageInputs
from lit_backdoor.stages.trainer_rules import check_length, check_settings

__all__ = ["Batch", "Outcome", "Stage"]


@dataclass
class Outcome:
    """What a stage hands on: a net or tensors, and numbers about them."""

    module: nn.Module | None = None
    tensors: Mapping[str, Tensor] | None = None
    numbers: dict[str, Any] = field(default_factory=dict)


class Stage(StageInputs):
    """One step of an attack or a defense, run by any Trainer.

    A subclass names the data it trains on (`views`), how it runs (`verb`), the `kind` of bundle it leaves, makes its
    nets in `build`, says in `logits` what is evaluated and in `outcome` what is handed on. Randomness in a training
    step is a function of (seed, epoch, batch, rank) alone, so a run resumed at an epoch's end equals one that was not.

    No hyperparameters are saved in checkpoints: a checkpoint resumes the same stage under the same configuration.
    """

    views: ClassVar[tuple[str, ...]] = ("root",)
    verb: ClassVar[Literal["fit", "predict"]] = "fit"
    kind: ClassVar[str] = "suspect"

    def __init__(self) -> None:
        super().__init__()
        self._built = False
        self._resumed: dict[str, Any] | None = None  # the checkpoint of which a part is still to be checked
        self._ready = self.verb == "predict"  # whether the weights were trained or loaded, or never will be
        self.eval_metrics = nn.ModuleDict({split: nn.ModuleDict(self.metrics()) for split in ("val", "test")})

    # What a subclass says.

    def build(self) -> None:
        """Make the nets. Called once, by `configure_model`."""

    def logits(self, images: Tensor) -> Tensor:
        """Classify images ``[B, C, H, W]`` in [0, 1] by what is evaluated; gives ``[B, num_classes]``."""
        raise ValueError(f"{type(self).__name__} has no classifier to evaluate.")

    def outcome(self) -> Outcome:
        """Say what is handed on."""
        raise TypeError(f"{type(self).__name__} leaves nothing.")

    def metrics(self) -> dict[str, Metric]:
        """Make the metrics of `evaluate`, by name."""
        return {"acc": Accuracy(), "acc_target": Accuracy(), "asr": AttackSuccessRate(), "ra": RobustAccuracy()}

    def evaluate(self, batch: Batch, metrics: Mapping[str, Metric]) -> list[str]:
        """Update the metrics by one batch of the ``clean`` or ``triggered`` view; name those that it concerned."""
        logits = self.logits(batch["image"]).float()
        if batch["view"] == "clean":
            metrics["acc"].update(logits, batch["label"], batch["valid"])
            target = getattr(getattr(self.attached_data, "attack", None), "single_target", None)
            if target is None:
                return ["acc"]
            # a net that never names the attack's class has an ASR of zero for nothing
            metrics["acc_target"].update(logits, batch["label"], batch["valid"] & (batch["label"] == target))
            return ["acc", "acc_target"]
        counted = batch["valid"] & batch["eligible"]
        metrics["asr"].update(logits, batch["label"], counted)
        metrics["ra"].update(logits, batch["clean_label"], counted)
        return ["asr", "ra"]

    # What every stage shares.

    def configure_model(self) -> None:
        """Build the nets, once and from a seed of their own; Lightning calls this before every run.

        Raises:
            ValueError: If the Trainer has a setting that no stage can work with.
        """
        check_settings(lambda name: getattr(self._trainer, name, None))
        if not self._built:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(self.seed)
                self.build()
            self._built = True
            self._check_attack()

    def _check_attack(self) -> None:
        """Check that the data's attack is the one that the suspect carries."""
        for name, bundle in self.sources.items():
            if bundle.kind == "suspect" and name in ("suspect", "bundle"):
                check_attack(getattr(self.attached_data, "attack", None), bundle)

    @property
    def planned_epochs(self) -> int | None:
        """Epochs that a run must have; None where any number will do."""
        return None

    def check_classes(self, num_classes: int) -> None:
        """Check arguments that name classes against the data's number of them; chains do so before anything starts."""

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> int | None:
        """Make the step's randomness a function of seed, epoch, batch and rank.

        Raises:
            ValueError: If the batch is not of the kind that this package's data modules give.
        """
        if not isinstance(batch, Mapping) or "image" not in batch:
            raise ValueError(
                f"{type(self).__name__} needs batches with 'image', 'label' and 'index', got a {type(batch).__name__}. "
                "Give the Trainer datamodule= a BackdoorDataModule; one of your own goes in as "
                "BackdoorDataModule(DataModuleSource(yours))."
            )
        words = np.random.SeedSequence((self.seed, self.current_epoch, batch_idx, self.global_rank)).generate_state(2)
        torch.manual_seed((int(words[0]) << 31) ^ int(words[1]))
        return None

    def on_before_backward(self, loss: Tensor) -> None:
        """Stop at a loss that is not finite, before it reaches the weights.

        Raises:
            DivergedError: With epoch and step.
        """
        if not torch.isfinite(loss):
            raise DivergedError(
                f"The training loss of {type(self).__name__} became {loss.item()} in epoch {self.current_epoch}, step "
                f"{self.global_step}. The checkpoint of the last finished epoch is kept. Lower the learning rate, or "
                "use --trainer.precision 32-true."
            )

    def check_finite(self, values: Tensor, what: str) -> None:
        """Stop where what a net gives at the start of an epoch is not finite, such as its activations.

        Raises:
            DivergedError: With epoch and step.
        """
        if not values.isfinite().all():
            raise DivergedError(
                f"The {what} of {type(self).__name__} are not finite at the start of epoch {self.current_epoch}, step "
                f"{self.global_step}. The checkpoint of the last finished epoch is kept. Lower the learning rate or "
                "the loss's weight."
            )

    def on_fit_start(self) -> None:
        """Note that this process trains the stage, so that it may be tested; label a root set that has no labels.

        Raises:
            ValueError: If the Trainer would train nothing, which would export weights as they began.
        """
        check_length(lambda name: getattr(self.trainer, name))
        if self._resumed is not None:
            check_optimizers(self._resumed, self.trainer)
            self._resumed = None
        self._ready = True
        view = getattr(self.attached_data, "get_view", None)
        if view is not None and "root" in self.views and "suspect" in self._given and view("root").unlabeled:
            self._label_root()

    @torch.no_grad()
    def _label_root(self) -> None:
        """Let the suspect, as it was given, label root images from elsewhere (data-free defense)."""
        labeler = self.open_classifier().to(self.device).eval()
        parts = [labeler(batch["image"]).argmax(1)[batch["valid"]] for batch in self.passes("root")]
        self.data.set_root_labels(torch.cat(parts).cpu(), guessed=True)

    def on_validation_start(self) -> None:
        """Refuse to evaluate weights that were never trained or loaded."""
        self._check_ready()

    def on_test_start(self) -> None:
        """Refuse to evaluate weights that were never trained or loaded."""
        self._check_ready()

    def on_predict_start(self) -> None:
        """Refuse to predict by weights that were never trained or loaded."""
        self._check_ready()

    def _check_ready(self) -> None:
        if not self._ready:
            raise ValueError(
                f"{type(self).__name__} has no trained weights here. Give --ckpt_path a checkpoint of this stage, or "
                "evaluate what it exported: lit-backdoor test --bundle DIR --data …"
            )

    def validation_step(self, batch: Batch, batch_idx: int, dataloader_idx: int = 0) -> None:
        """Evaluate one batch."""
        self._evaluate(batch, "val")

    def test_step(self, batch: Batch, batch_idx: int, dataloader_idx: int = 0) -> None:
        """Evaluate one batch."""
        self._evaluate(batch, "test")

    def predict_step(self, batch: Batch, batch_idx: int, dataloader_idx: int = 0) -> Tensor | None:
        """Give the logits of one batch of the stage's view."""
        return self.logits(batch["image"])

    def _evaluate(self, batch: Batch, split: str) -> None:
        metrics = cast("Mapping[str, Metric]", self.eval_metrics[split])
        for name in self.evaluate(batch, metrics):
            self.log(f"{split}/{name}", metrics[name], add_dataloader_idx=False, batch_size=len(batch["label"]))

    def log_train(self, batch_size: int, **values: Tensor | float) -> None:
        """Log training numbers, averaged over the epoch; ``loss`` also goes to the progress bar."""
        for name, value in values.items():
            self.log(
                f"train/{name}", value, on_step=False, on_epoch=True, prog_bar=name == "loss", batch_size=batch_size
            )

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Say which stage wrote the checkpoint, so that no other takes it."""
        cls = type(self)
        checkpoint["lit_backdoor"] = {"stage": f"{cls.__module__}.{cls.__qualname__}", "version": __version__}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuse the checkpoint of another stage, and one that holds what no Trainer of this run would write.

        Raises:
            ValueError: If another stage wrote it, a part is not as this run has it, or training would go on from the
                middle of an epoch.
        """
        mine = f"{type(self).__module__}.{type(self).__qualname__}"
        ours = checkpoint.get("lit_backdoor")
        wrote = ours.get("stage") if isinstance(ours, dict) else "a program that is not lit_backdoor"
        if wrote != mine:
            raise ValueError(
                f"Expected a checkpoint of {mine}, got one of {wrote}. --ckpt_path resumes the same stage; hand "
                "results on as a bundle, for example --model.suspect DIR."
            )
        if self._trainer is not None:
            check_resumed(checkpoint, self.trainer, self)
            self._resumed = checkpoint
        self._ready = True

    def __getattr__(self, name: str) -> Any:
        """Say of a net that is not there that no Trainer has run the stage yet."""
        try:
            return super().__getattr__(name)
        except AttributeError as error:
            if name.startswith("_") or self.__dict__.get("_built", True):
                raise
            raise AttributeError(
                f"{error}: nets are made when a Trainer runs the stage. Call fit or predict first."
            ) from None

    def export(self, path: str | Path, key: str | None = None) -> None:
        """Write what the stage hands on as a bundle at ``path``; all processes call it, the first one writes."""
        outcome = self.outcome()
        datamodule = self.attached_data
        if self.global_rank == 0:
            save_bundle(
                path,
                kind=self.kind,
                module=outcome.module,
                tensors=outcome.tensors,
                numbers=outcome.numbers,
                attack=getattr(datamodule, "attack", None),
                inputs={
                    name: {"hash": bundle.hash, "path": Path(os.path.relpath(bundle.path, path)).as_posix()}
                    for name, bundle in self.sources.items()
                },
                key=key,
                meta={
                    "stage": f"{type(self).__module__}.{type(self).__qualname__}",
                    "class_names": list(getattr(datamodule, "class_names", ())),
                },
            )
        if self._trainer is not None:
            self.trainer.strategy.barrier()
