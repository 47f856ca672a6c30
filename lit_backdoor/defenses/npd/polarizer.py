"""NPD's training of the layer."""

from __future__ import annotations

import torch
from lightning.pytorch.cli import OptimizerCallable
from torch import Tensor
from torch.nn import functional as F

from lit_backdoor.functional.adversarial import avoidance, projected_ascent
from lit_backdoor.models import Classifier, Plugged
from lit_backdoor.models.base import evaluating
from lit_backdoor.stages import Batch, FineTune
from lit_backdoor.stages.optim import Schedule, sgd

__all__ = ["NeuralPolarizer"]


class NeuralPolarizer(FineTune):
    r"""Put a layer into a suspect and train only that, so that adversarial images keep their class (NPD).

    .. math:: \mathrm{CE}(f(x), y) + \lambda \bigl[\mathrm{CE}(f(\tilde x), \hat y) - \log(1 - p_t(\tilde x))
        - \log(1 - p_s(\tilde x))\bigr]

    Each batch is changed toward the class t that f gives second to x, with changes of bounded length; :math:`\hat y` is
    the class that f gives to x, and s the likeliest other class of the changed image. The layer (`Plugged`) is the
    identity at the start. The suspect's own weights and statistics stay as they are.

    Args:
        suspect: Path of a suspect bundle, or a classifier (a copy of it gets the layer).
        layer: Name of the convolution before which the layer is put; None for the last but one (in ResNet-18
            ``layer4.1.conv1``, the release's).
        weight: lambda >= 0. Release: .4.
        budget: Largest length of a change, the norm over pixels in [0, 1], > 0. Release: 3.
        steps: Steps of the search, in which pixels change by .1. Release: 2, at first 10.
        optimizer: Makes the optimizer; default SGD .01, momentum .9, weight decay 5e-4.
        schedule: What the learning rate does over the run.

    Raises:
        ValueError: If a number is out of range or an option unknown; when run, if the layer is no convolution.
    """

    def __init__(
        self,
        suspect: str | Classifier,
        layer: str | None = None,
        weight: float = 0.4,
        budget: float = 3.0,
        steps: int = 2,
        optimizer: OptimizerCallable = sgd,
        schedule: Schedule = "cosine",
    ) -> None:
        super().__init__(suspect, optimizer, schedule)
        if not weight >= 0:
            raise ValueError(f"Expected weight to be 0 or more, got {weight}.")
        if not budget > 0:
            raise ValueError(f"Expected budget to be above 0, got {budget}.")
        if steps < 1:
            raise ValueError(f"Expected steps of at least 1, got {steps}.")
        self.layer, self.weight, self.budget, self.steps = layer, weight, budget, steps

    def build(self) -> None:
        """Open the suspect, freeze it and put the layer in."""
        super().build()
        layer = self.layer or self.classifier.last_layers(2)[-1]
        plugged = Plugged(self.classifier.requires_grad_(False), layer)
        plugged.plug.requires_grad_(True)
        self.classifier: Plugged = plugged

    def begin_epoch(self) -> None:
        """Let only the layer take batch statistics."""
        self.classifier.eval()
        self.classifier.plug.train()

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Compute the loss of clean and of changed images, which go through the net together: one set of statistics."""
        images, labels = batch["image"], batch["label"]
        with torch.no_grad(), evaluating(self.classifier):
            own, second = self.classifier(images).topk(2, dim=1).indices.unbind(1)

        def objective(changed: Tensor) -> Tensor:
            return -F.cross_entropy(self.classifier(changed).float(), second)

        with evaluating(self.classifier):
            start = torch.zeros_like(images)
            changed = projected_ascent(images, objective, start, self.budget, self.steps, 0.1, "l2")
        clean, logits = self.classifier(torch.cat((images, changed))).float().chunk(2)
        likeliest = logits.detach().scatter(1, own[:, None], -torch.inf).argmax(1)
        entropy = F.cross_entropy(clean, labels)
        avoided = avoidance(logits, second).mean() + avoidance(logits, likeliest).mean()
        kept = F.cross_entropy(logits, own)
        loss = entropy + self.weight * (kept + avoided)
        return {"loss": loss, "entropy": entropy.detach(), "kept": kept.detach(), "avoided": avoided.detach()}
