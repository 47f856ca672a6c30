"""Training of a generator against a frozen suspect: the plainest form of the role."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, ClassVar, get_args

import torch
from lightning.pytorch.cli import OptimizerCallable
from torch import Tensor, nn
from torchmetrics import Metric

from lit_backdoor.errors import one_of
from lit_backdoor.metrics import DegreeOfFeatureCollisions
from lit_backdoor.models import Classifier, Frozen, UNet
from lit_backdoor.stages.base import Batch, Outcome, Stage
from lit_backdoor.stages.optim import Schedule, scheduled

__all__ = ["GeneratorTraining", "update_dof"]


class GeneratorTraining(Stage):
    """Train a generator (image to image, both in [0, 1]) on root data while the suspect is frozen in eval mode.

    A subclass says in `objective` what is minimized. Its test reports DoF: how alike the suspect's logits are on
    truly triggered and on generated images.

    Args:
        suspect: Path of a suspect bundle, or a classifier.
        generator: The net to train; default `UNet`.
        optimizer: Makes the optimizer; default Adam 1e-3.
        schedule: What the learning rate does over the run.

    Raises:
        ValueError: If the schedule is unknown.
    """

    kind: ClassVar[str] = "generator"

    def __init__(
        self,
        suspect: str | Classifier,
        generator: UNet | None = None,
        optimizer: OptimizerCallable = lambda p: torch.optim.Adam(p, lr=1e-3),
        schedule: Schedule = "constant",
    ) -> None:
        super().__init__()
        self.given(suspect=suspect)
        self.generator = generator or UNet()
        self.optimizer = optimizer
        self.schedule = one_of("schedule", schedule, get_args(Schedule))

    def build(self) -> None:
        """Open the suspect."""
        self.net = Frozen(self.open_classifier())

    def configure_optimizers(self) -> Any:
        """Make the optimizer and its schedule."""
        return scheduled(self, self.optimizer(self.generator.parameters()), self.schedule)

    @abstractmethod
    def objective(self, batch: Batch, generated: Tensor) -> dict[str, Tensor]:
        """Give ``loss`` and the parts of it to be logged."""
        raise NotImplementedError

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Train on one batch of root images."""
        parts = self.objective(batch, self.generator(batch["image"]))
        self.log_train(len(batch["image"]), **parts)
        return parts["loss"]

    def predict_step(self, batch: Batch, batch_idx: int, dataloader_idx: int = 0) -> Tensor:
        """Give the images generated from one batch of root images."""
        return self.generator(batch["image"])  # type: ignore[no-any-return]

    def metrics(self) -> dict[str, Metric]:
        """Measure DoF."""
        return {"dof": DegreeOfFeatureCollisions()}

    def evaluate(self, batch: Batch, metrics: Any) -> list[str]:
        """Compare logits on triggered and generated images (ATClean, Eq. 6), over all test rows."""
        return update_dof(batch, metrics["dof"], self.net, self.generator)

    def outcome(self) -> Outcome:
        """Hand on the generator."""
        return Outcome(module=self.generator)


def update_dof(batch: Batch, metric: Metric, suspect: nn.Module, generator: nn.Module) -> list[str]:
    """Update DoF by one batch: the suspect's logits on each test row triggered, and on what is generated from it.

    There is none where rows carry the trigger themselves: no image is there without it to generate from.
    """
    if "original" not in batch:  # the clean view, or a trigger that is not stamped
        return []
    generated = suspect(generator(batch["original"]))
    metric.update(suspect(batch["image"]).float(), generated.float(), batch["valid"])
    return ["dof"]
