"""Training of a generator against a frozen suspect: the plainest form of the role."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, ClassVar, get_args

from lightning.pytorch.cli import OptimizerCallable
from torch import Tensor, nn

from lit_backdoor.errors import one_of
from lit_backdoor.models import Classifier, Frozen, UNet
from lit_backdoor.stages.base import Batch, Stage
from lit_backdoor.stages.evaluation import Evaluator, GeneratorEvaluator
from lit_backdoor.stages.optim import Schedule, adam_for_generators, scheduled

__all__ = ["GeneratorTraining"]


class GeneratorTraining(Stage):
    """Train a generator (image to image, both in [0, 1]) on root data while the suspect is frozen in eval mode.

    A subclass says in `losses` what is minimized. Its test reports DoF: how alike the suspect's logits are on
    truly triggered and on generated images.

    Args:
        suspect: Path of a suspect bundle, or a classifier.
        generator: The net to train; default `UNet`.
        optimizer: Makes the optimizer; default Adam 1e-3.
        schedule: What the learning rate does over the run.

    Raises:
        ValueError: If the schedule is unknown.
    """

    kind: ClassVar[str | None] = "generator"

    def __init__(
        self,
        suspect: str | Classifier,
        generator: UNet | None = None,
        optimizer: OptimizerCallable = adam_for_generators,
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
    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Give ``loss`` on one batch of root images, and the parts of it to be logged."""
        raise NotImplementedError

    def result(self) -> nn.Module:
        """Give the generator."""
        return self.generator

    def evaluator(self) -> Evaluator:
        """Measure DoF."""
        return GeneratorEvaluator(self.attached_data, self.net, self.generator)
