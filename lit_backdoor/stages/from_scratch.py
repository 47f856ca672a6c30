"""Training anew on the questioned dataset, by a defender who has that and nothing else."""

from __future__ import annotations

from typing import ClassVar, Literal

from lightning.pytorch.cli import OptimizerCallable

from lit_backdoor.models import Classifier
from lit_backdoor.recipe import rebuild, recipe
from lit_backdoor.stages.optim import Schedule, sgd_from_scratch
from lit_backdoor.stages.repair import FineTune

__all__ = ["FromScratch"]


class FromScratch(FineTune):
    """Train a net like the suspect from new weights on the questioned dataset; a subclass gives the loss.

    Args:
        suspect: Path of a suspect bundle, or a classifier; only its architecture is used.
        optimizer: Makes the optimizer; default SGD, Nesterov .9, learning rate .1, weight decay 5e-4.
        schedule: What the learning rate does over the run.
        batch_norm: ``train`` uses and updates batch statistics, ``eval`` keeps the first ones.
    """

    views: ClassVar[tuple[str, ...]] = ("train",)

    def __init__(
        self,
        suspect: str | Classifier,
        optimizer: OptimizerCallable = sgd_from_scratch,
        schedule: Schedule = "one_cycle",
        batch_norm: Literal["train", "eval"] = "train",
    ) -> None:
        super().__init__(suspect, optimizer, schedule, batch_norm)

    def build(self) -> None:
        """Make a net by the suspect's recipe; the suspect has been built already, so its classes are trusted."""
        self.classifier: Classifier = rebuild(recipe(self.open_classifier()), trust=None).train()
