"""Training of a suspect on the questioned dataset, as a user does who does not know that it is poisoned."""

from __future__ import annotations

from typing import Any, ClassVar, get_args

from lightning.pytorch.cli import OptimizerCallable
from torch import Tensor
from torch.nn import functional as F
from torch.optim import Optimizer

from lit_backdoor.errors import one_of
from lit_backdoor.functional.abl import flooding, local_gradient_ascent
from lit_backdoor.models import Classifier
from lit_backdoor.stages.base import Batch, Stage
from lit_backdoor.stages.optim import Schedule, scheduled, sgd_from_scratch

__all__ = ["FloodingTraining", "LocalGradientAscentTraining", "PoisonedTraining"]


class PoisonedTraining(Stage):
    """Train a classifier by cross-entropy on the questioned dataset; the result is a suspect.

    Args:
        classifier: The net to train.
        optimizer: Makes the optimizer; default SGD, Nesterov .9, learning rate .1, weight decay 5e-4.
        schedule: What the learning rate does over the run.
        label_smoothing: Share of the label's mass spread over all classes, in [0, 1).

    Raises:
        ValueError: If the schedule is unknown or ``label_smoothing`` out of range; when run, if the classifier's number
            of classes is not the data's.
    """

    views: ClassVar[tuple[str, ...]] = ("train",)

    def __init__(
        self,
        classifier: Classifier,
        optimizer: OptimizerCallable = sgd_from_scratch,
        schedule: Schedule = "one_cycle",
        label_smoothing: float = 0.0,
    ) -> None:
        super().__init__()
        if not 0 <= label_smoothing < 1:
            raise ValueError(f"Expected label_smoothing in [0, 1), got {label_smoothing}.")
        self.classifier = classifier
        self.optimizer = optimizer
        self.schedule = one_of("schedule", schedule, get_args(Schedule))
        self.label_smoothing = label_smoothing

    def setup(self, stage: str) -> None:
        """Check the classifier against the data, and that the attack plants its rows."""
        super().setup(stage)
        attack = getattr(self.attached_data, "attack", None)
        if attack is not None and attack.rate is None and "train" in self.views:
            raise ValueError(
                f"Expected data.attack to have a rate for {type(self).__name__}, got none: no row would be poisoned. "
                "Set data.attack.init_args.rate=0.1, or train on it by an attack of its own, such as LIRATraining."
            )
        self.check_classes(getattr(self.attached_data, "num_classes", self.classifier.num_classes))
        self.warn_of_size(self.classifier)

    def check_classes(self, num_classes: int) -> None:
        """Check the classifier's number of classes against the data's."""
        if num_classes != self.classifier.num_classes:
            raise ValueError(
                f"Expected a classifier for the data's {num_classes} classes, got one for "
                f"{self.classifier.num_classes}. Set model.init_args.classifier.init_args.num_classes={num_classes}."
            )

    def configure_optimizers(self) -> Any:
        """Make the optimizer and its schedule."""
        optimizer: Optimizer = self.optimizer(self.classifier.parameters())
        return scheduled(self, optimizer, self.schedule)

    def result(self) -> Classifier:
        """Give the net in training."""
        return self.classifier

    def criterion(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Cross-entropy, the mean over the batch."""
        return F.cross_entropy(logits, labels, label_smoothing=self.label_smoothing)

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Compute the loss and the accuracy on one poisoned batch."""
        logits, labels = self.classifier(batch["image"]).float(), batch["label"]
        return {"loss": self.criterion(logits, labels), "acc": (logits.argmax(1) == labels).float().mean()}


class LocalGradientAscentTraining(PoisonedTraining):
    """Training that keeps the loss of most rows near ``gamma``, so that poisoned rows stand out by a lower one.

    Anti-Backdoor Learning, Li et al. 2021, Eq. 3: sign(loss - gamma) * loss. What it trains feeds a selection.

    Args:
        classifier: The net to train.
        gamma: Loss level that rows are held at, in nats.
        optimizer: Makes the optimizer.
        schedule: What the learning rate does over the run.
    """

    def __init__(
        self,
        classifier: Classifier,
        gamma: float = 0.5,
        optimizer: OptimizerCallable = sgd_from_scratch,
        schedule: Schedule = "one_cycle",
    ) -> None:
        super().__init__(classifier, optimizer, schedule)
        self.gamma = gamma

    def criterion(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Local gradient ascent, on the mean loss of the batch."""
        return local_gradient_ascent(logits, labels, self.gamma)


class FloodingTraining(LocalGradientAscentTraining):
    """Training that keeps the loss near ``gamma`` by flooding, BackdoorBench's default for ABL.

    Ishida et al. 2020: abs(loss - gamma) + gamma. Arguments as in `LocalGradientAscentTraining`.
    """

    def criterion(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Flooding, on the mean loss of the batch."""
        return flooding(logits, labels, self.gamma)
