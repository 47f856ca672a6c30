"""Fine-tuning whose result is the average of the weights over the last epochs' steps."""

from __future__ import annotations

import warnings
from typing import Any, Literal, cast

from lightning.pytorch.cli import OptimizerCallable
from torch.optim.swa_utils import AveragedModel

from lit_backdoor.models import Classifier
from lit_backdoor.stages.optim import Schedule, adam
from lit_backdoor.stages.repair import FineTune

__all__ = ["AveragedFineTune"]


class AveragedFineTune(FineTune):
    """Fine-tune a suspect, and give the average of its weights over the steps of the last epochs.

    Args:
        suspect: Path of a suspect bundle, or a classifier (a copy of it is tuned).
        optimizer: Makes the optimizer; default Adam 1e-4.
        schedule: What the learning rate does over the run.
        batch_norm: ``train`` uses and updates batch statistics, ``eval`` keeps the suspect's running ones.
        average: The last epochs over whose steps weights are averaged; 0 takes those after the last step, and so does
            a run that ended before them.

    Raises:
        ValueError: If ``average`` is negative; when run, if it is not 0 and the number of epochs is not known.
    """

    def __init__(
        self,
        suspect: str | Classifier,
        optimizer: OptimizerCallable = adam,
        schedule: Schedule = "constant",
        batch_norm: Literal["train", "eval"] = "train",
        average: int = 1,
    ) -> None:
        super().__init__(suspect, optimizer, schedule, batch_norm)
        if average < 0:
            raise ValueError(f"Expected average to be 0 or more epochs, got {average}.")
        self.average = average

    def build(self) -> None:
        """Open the suspect and make room for the average."""
        super().build()
        if self.average:
            self.mean = AveragedModel(self.classifier).requires_grad_(False)

    def on_fit_start(self) -> None:
        """Check that the last epochs are known."""
        super().on_fit_start()
        if self.average and (self.trainer.max_epochs or 0) < 1:
            raise ValueError("Expected --trainer.max_epochs to be set: weights are averaged over the last ones.")

    def on_train_start(self) -> None:
        """Begin a new average where the run is not a resumed one."""
        if self.average and self.current_epoch == 0:
            self.mean.n_averaged.zero_()

    def on_train_end(self) -> None:
        """Say where the run ended before there was anything to average."""
        if self.average and not self.mean.n_averaged and not self.idle:
            warnings.warn(
                f"{type(self).__name__} ended before the last {self.average} of {self.trainer.max_epochs} epochs, over "
                "whose steps weights are averaged: its result is that of the last step. Set max_epochs to what is run.",
                stacklevel=2,
            )

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        """Make a step, and average the weights in the last epochs; several batches may make one step."""
        super().optimizer_step(*args, **kwargs)
        if self.average and self.current_epoch + self.average >= cast(int, self.trainer.max_epochs):
            self.mean.update_parameters(self.classifier)

    def result(self) -> Classifier:
        """Give the average; until there is one, the suspect as tuned so far."""
        return cast(Classifier, self.mean.module) if self.average and self.mean.n_averaged else self.classifier
