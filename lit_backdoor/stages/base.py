"""The base of every stage: it builds its nets once, trains, evaluates on clean and triggered images, and exports."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal, cast

import torch
from torch import Tensor, nn

from lit_backdoor.data.attack_given import check_attack
from lit_backdoor.stages import rules
from lit_backdoor.stages.checkpoint import check_optimizers, check_resumed
from lit_backdoor.stages.evaluation import ClassifierEvaluator, Evaluator
from lit_backdoor.stages.export import write_bundle
from lit_backdoor.stages.inputs import Batch, StageInputs
from lit_backdoor.stages.tally import Tally

__all__ = ["Batch", "Outcome", "Stage"]


@dataclass
class Outcome:
    """What a stage exports: a net or tensors, and numbers about them."""

    module: nn.Module | None = None
    tensors: Mapping[str, Tensor] | None = None
    numbers: dict[str, Any] = field(default_factory=dict)


class Stage(StageInputs):
    """One step of an attack or a defense, run by any Trainer.

    A subclass names the data it trains on (`views`), how it runs (`verb`) and the `kind` of bundle it exports. It makes
    its nets in `build`, sets modes and phases in `begin_epoch`, gives `losses`, and says in `result` what is validated,
    tested and exported. Randomness in a training step is a function of (seed, epoch, batch, rank) only, so a run that
    resumes at an epoch's end equals one that was not stopped.

    No hyperparameters are saved in checkpoints: a checkpoint resumes the same stage under the same configuration.

    Attributes:
        views: Views of the data module that batches come from.
        verb: How the stage is run.
        kind: Kind of its bundle; None where it exports nothing.
        evaluation: The evaluator of the last validation or test.
        mid_epoch: Whether the run resumed inside the current epoch, not at its start.
    """

    views: ClassVar[tuple[str, ...]] = ("root",)
    verb: ClassVar[Literal["fit", "predict"]] = "fit"
    kind: ClassVar[str | None] = "suspect"

    def __init__(self) -> None:
        super().__init__()
        self.evaluation = Evaluator()
        self.mid_epoch = False
        self._resumed: dict[str, Any] | None = None  # the checkpoint of which a part is still to be checked
        self._trained = self.verb == "predict"  # or loaded, or never trained at all
        self._begun = -1  # the last epoch that began in this process
        self._tally = Tally()

    # Override in subclasses.

    def build(self) -> None:
        """Make the nets. Called once, by `configure_model`."""

    def begin_epoch(self) -> None:
        """Prepare an epoch of training: modes, phases. Called in every epoch, also in the one that a run resumes at."""

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Give ``loss``, which is minimized, and what is logged with it; nothing where nothing is to be trained."""
        raise TypeError(f"{type(self).__name__} trains nothing.")

    def result(self) -> nn.Module:
        """Give the net that is validated, tested and exported."""
        raise ValueError(f"{type(self).__name__} has no net to evaluate.")

    def numbers(self) -> dict[str, Any]:
        """Give the numbers that are exported with the result."""
        return {}

    def outcome(self) -> Outcome:
        """Give what is exported."""
        return Outcome(self.result(), numbers=self.numbers())

    def evaluator(self) -> Evaluator:
        """Make what measures the result in a validation or a test."""
        return ClassifierEvaluator(self.attached_data, self.result())

    def check_classes(self, num_classes: int) -> None:
        """Check arguments that name classes against the data's number of them; chains do so before anything starts."""

    @property
    def planned_epochs(self) -> int | None:
        """Epochs that a run must have; None where any number will do."""
        return None

    # The run.

    def forward(self, images: Tensor) -> Tensor:
        """Apply the result to images ``[B, C, H, W]`` in [0, 1]."""
        return cast(Tensor, self.result()(images))

    @property
    def ready(self) -> bool:
        """Whether the nets are there, and were trained or loaded where the stage trains them."""
        return self.built and self._trained

    def setup(self, stage: str) -> None:
        """Give a run that must have a number of epochs that number."""
        if stage == "fit" and self.planned_epochs is not None:
            rules.fill_epochs(self.trainer, type(self).__name__, self.planned_epochs)

    def configure_model(self) -> None:
        """Build the nets, once and from a seed of their own; Lightning calls this before every run."""
        rules.check_settings(lambda name: getattr(self.attached_trainer, name, None))
        if not self.built:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(self.seed)
                self.build()
            self.built = True
            for name in ("suspect", "bundle"):
                if name in self.sources:
                    check_attack(getattr(self.attached_data, "attack", None), self.sources[name])

    def on_fit_start(self) -> None:
        """Note that this process trains the stage, so that it may be tested; label a root set that has no labels."""
        rules.check_length(lambda name: getattr(self.trainer, name))
        for optimizer in self.trainer.optimizers:
            rules.check_rates(optimizer)
        if self._resumed is not None:
            check_optimizers(self._resumed, self.trainer)
            self._resumed = None
        self._trained = True
        if "root" in self.views:
            self.label_root()

    def on_train_epoch_start(self) -> None:
        """Begin the epoch."""
        self._begin(mid=False)

    def _begin(self, mid: bool) -> None:
        self._begun, self.mid_epoch, self._tally = self.current_epoch, mid, Tally()
        self.begin_epoch()

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> int | None:
        """Make the step's randomness a function of seed, epoch, batch and rank."""
        rules.check_batch(type(self).__name__, batch)
        if self._begun != self.current_epoch:  # Lightning skips the hook in the epoch that a run resumes at
            self._begin(mid=batch_idx > 0)
        rules.seed_step((self.seed, self.current_epoch, batch_idx, self.global_rank), self.device)
        return None

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor | None:
        """Give the loss of a batch; its numbers are read and logged later, since each read waits for the device."""
        found = self.losses(batch)
        self.note(batch, found)
        return found.get("loss")

    def note(self, batch: Batch, found: Mapping[str, Tensor]) -> None:
        """Keep the numbers of a step until they are read."""
        self._tally.add(self.global_step, len(batch["image"]), found)
        if self._tally.full:
            self.check_losses()

    def check_losses(self) -> None:
        """Stop if a loss since the last check was not finite; checkpoints are written after a check only.

        Raises:
            DivergedError: With epoch and step.
        """
        self._tally.read()
        rules.check_loss(self, self._tally.bad)

    def on_train_epoch_end(self) -> None:
        """Log the averages of the epoch's numbers."""
        self.check_losses()
        for name, value in self._tally.means().items():
            self.log(f"train/{name}", value, prog_bar=name == "loss")

    def on_validation_start(self) -> None:
        """Begin the evaluation."""
        self._begin_evaluation()

    def on_test_start(self) -> None:
        """Begin the evaluation."""
        self._begin_evaluation()

    def on_predict_start(self) -> None:
        """Refuse to predict by weights that were never trained or loaded."""
        rules.check_ready(type(self).__name__, self._trained)

    def _begin_evaluation(self) -> None:
        rules.check_ready(type(self).__name__, self._trained)
        self.evaluation = self.evaluator().to(self.device)

    def validation_step(self, batch: Batch, batch_idx: int, dataloader_idx: int = 0) -> None:
        """Evaluate one batch."""
        self.evaluation.update(batch)

    def test_step(self, batch: Batch, batch_idx: int, dataloader_idx: int = 0) -> None:
        """Evaluate one batch."""
        self.evaluation.update(batch)

    def predict_step(self, batch: Batch, batch_idx: int, dataloader_idx: int = 0) -> Tensor | None:
        """Apply the result to one batch of the stage's view."""
        return self(batch["image"])  # type: ignore[no-any-return]

    def on_validation_epoch_end(self) -> None:
        """Log the numbers."""
        self.log_dict({f"val/{name}": value for name, value in self.evaluation.compute().items()})

    def on_test_epoch_end(self) -> None:
        """Log the numbers."""
        self.log_dict({f"test/{name}": value for name, value in self.evaluation.compute().items()})

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Say which stage wrote the checkpoint, so that no other takes it; after a bad loss none is written."""
        self.check_losses()
        checkpoint["lit_backdoor"] = rules.mark(self)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuse the checkpoint of another stage, and one that holds what no Trainer of this run would write."""
        rules.check_mark(self, checkpoint)
        if self.attached_trainer is not None:
            check_resumed(checkpoint, self.trainer, self)
            self._resumed = checkpoint
        self._trained = True

    def export(self, path: str | Path, key: str | None = None) -> None:
        """Write the outcome as a bundle at ``path``; all processes call it, the first one writes."""
        write_bundle(self, path, key)
