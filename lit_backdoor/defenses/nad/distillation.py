"""NAD's distillation of attention maps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal

from lightning.pytorch.cli import OptimizerCallable
from torch import Tensor
from torch.nn import functional as F

from lit_backdoor.functional.attention import attention_distance
from lit_backdoor.models import Classifier, Frozen
from lit_backdoor.models.resolutions import last_of_each_size
from lit_backdoor.stages.base import Batch
from lit_backdoor.stages.inputs import Takes
from lit_backdoor.stages.optim import Schedule, adam
from lit_backdoor.stages.repair import FineTune

__all__ = ["NAD"]


class NAD(FineTune):
    r"""Fine-tune the suspect on root data, its attention maps pulled to a teacher's (Eq. 4).

    .. math:: \mathcal L = \mathrm{CE}(f(x), y)
        + \sum_l \beta_l \, \mathrm{mean}\bigl(a(F^S_l) - a(F^T_l)\bigr)^2

    The teacher is the suspect after plain fine-tuning; it is frozen. The layers are the last blocks at each of the last
    resolutions of the net, as many as there are weights, or fewer where the net has fewer resolutions.

    Args:
        suspect: Path of a suspect bundle, or a classifier (a copy of it is tuned): the student.
        teacher: Path of the bundle of the fine-tuned suspect, or a classifier.
        betas: Weights of the layers, the last layer's last, each 0 or more. BackdoorBench: 500, 1000, 1000;
            release: 0, 0, 5000.
        optimizer: Makes the optimizer; default Adam 1e-4.
        schedule: What the learning rate does over the run.
        batch_norm: ``train`` uses and updates batch statistics, ``eval`` keeps the suspect's running ones.

    Raises:
        ValueError: If there are no weights or a negative one.
    """

    takes: ClassVar[Takes] = {**FineTune.takes, "teacher": ("suspect",)}

    def __init__(
        self,
        suspect: str | Classifier,
        teacher: str | Classifier,
        betas: Sequence[float] = (500.0, 1000.0, 1000.0),
        optimizer: OptimizerCallable = adam,
        schedule: Schedule = "constant",
        batch_norm: Literal["train", "eval"] = "train",
    ) -> None:
        super().__init__(suspect, optimizer, schedule, batch_norm)
        if not betas or not all(beta >= 0 for beta in betas):
            raise ValueError(f"Expected betas as one or more weights of 0 or more, got {betas}.")
        self.given(teacher=teacher)
        self.betas = tuple(betas)

    def build(self) -> None:
        """Open the student and the teacher, and name the layers."""
        super().build()
        self.teacher: Frozen[Classifier] = Frozen(self.open_classifier("teacher"))
        layers = last_of_each_size(self.classifier)[-len(self.betas) :]
        self.weights = dict(zip(layers, self.betas[-len(layers) :], strict=True))

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Compute the cross-entropy and the distance of attention maps."""
        images = batch["image"]
        logits, own = self.classifier.logits_and_taps(images, self.weights)
        taught = self.teacher.module.taps(images, self.weights)
        distances = [beta * attention_distance(own[name], taught[name]) for name, beta in self.weights.items()]
        attention = sum(distances[1:], distances[0])
        return {"loss": F.cross_entropy(logits.float(), batch["label"]) + attention, "attention_loss": attention}
