"""AWM's training of masks on the weights of convolutions."""

from __future__ import annotations

from typing import Any

import torch
from lightning.pytorch.cli import OptimizerCallable
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F
from torch.optim import Adam, Optimizer
from torch.optim.lr_scheduler import StepLR

from lit_backdoor.errors import check_share
from lit_backdoor.models import Classifier, Frozen
from lit_backdoor.stages.base import Batch
from lit_backdoor.stages.repair import Mitigation

__all__ = ["AdversarialWeightMasking"]


def adam_for_masks(parameters: Any) -> Optimizer:
    """Make the release's Adam, at 1e-2."""
    return Adam(parameters, lr=1e-2)


class AdversarialWeightMasking(Mitigation):
    r"""Train a mask in [0, 1] on each weight of the convolutions against one change of all images (AWM).

    .. math:: \min_{m \in [0, 1]^d} \max_{\|\delta\|_1 \le \tau} \; \alpha\, \mathcal L(f_{m \odot \theta}(x), y)
        + (1 - \alpha)\, \mathcal L(f_{m \odot \theta}(x + \delta), y) + \gamma \|m\|_1

    Every ``round_epochs`` epochs the change is searched from 0 by gradient ascent over the root set, away from the
    labels that the masked net itself gives, and then scaled into its bound. The net is in eval mode throughout. As in
    the release, changed images may leave [0, 1] in the search, and are clipped to it in the loss.

    Args:
        suspect: Path of a suspect bundle, or a classifier (a copy of it is masked).
        alpha: Weight of the loss of clean images, in (0, 1). Release: .9.
        sparsity: gamma >= 0. Release: 1e-8.
        budget: tau as the mean absolute change of a pixel, in (0, 1]. Release: a sum of 1000 on CIFAR-10: .326.
        search_lr: Learning rate of the search, > 0. Release: 10.
        search_passes: Passes over the root set in each search, one step per evaluation batch. Release: 5.
        round_epochs: Epochs from one search to the next, at least 1. Release: 5.
        decay: What the learning rate is multiplied by from one round to the next, in (0, 1]. Release: .9.
        optimizer: Makes the optimizer of the masks; default Adam 1e-2.

    Raises:
        ValueError: If a number is out of range; when run, if the suspect has no convolution.
    """

    change: Tensor

    def __init__(
        self,
        suspect: str | Classifier,
        alpha: float = 0.9,
        sparsity: float = 1e-8,
        budget: float = 1000 / 3072,
        search_lr: float = 10.0,
        search_passes: int = 10,
        round_epochs: int = 5,
        decay: float = 1.0,
        optimizer: OptimizerCallable = adam_for_masks,
    ) -> None:
        super().__init__(suspect)
        if not (sparsity >= 0 and search_lr > 0):
            raise ValueError(f"Expected sparsity of 0 or more and search_lr above 0, got {sparsity} and {search_lr}.")
        if min(search_passes, round_epochs) < 1:
            raise ValueError(
                f"Expected search_passes and round_epochs of at least 1, got {search_passes} and {round_epochs}."
            )
        self.alpha = check_share("alpha", alpha)
        self.budget = check_share("budget", budget, closed=True)
        self.decay = check_share("decay", decay, closed=True)
        self.sparsity, self.search_lr = sparsity, search_lr
        self.search_passes, self.round_epochs = search_passes, round_epochs
        self.optimizer = optimizer

    def build(self) -> None:
        """Open the suspect twice, as it was given and as it will be, and make the masks, all 1."""
        super().build()
        self.classifier.requires_grad_(False)
        self.given_net: Frozen[Classifier] = Frozen(self.open_classifier())
        modules = self.given_net.module.named_modules()
        self.names = [f"{name}.weight" for name, module in modules if isinstance(module, nn.Conv2d)]
        if not self.names:
            raise ValueError(
                f"Expected a suspect with convolutions, got {type(self.classifier.net).__name__} without any: AWM "
                "masks their weights. Choose another defense for it, such as fine_tune."
            )
        self.masks = nn.ParameterList(torch.ones_like(self.given_net.module.get_parameter(name)) for name in self.names)
        self.register_buffer("change", self.classifier.example())  # saved: a run resumed in mid-round does not search

    def configure_optimizers(self) -> Any:
        """Make the optimizer of the masks, whose learning rate decays with the rounds."""
        optimizer = self.optimizer(self.masks.parameters())
        if self.decay == 1:
            return optimizer
        return {"optimizer": optimizer, "lr_scheduler": StepLR(optimizer, self.round_epochs, self.decay)}

    def masked_weights(self) -> dict[str, Tensor]:
        """Give the masked weights, by name."""
        net = self.given_net.module
        return {name: net.get_parameter(name) * mask for name, mask in zip(self.names, self.masks, strict=True)}

    def logits(self, images: Tensor) -> Tensor:
        """Give the logits of the masked net."""
        return functional_call(self.given_net.module, self.masked_weights(), (images,)).float()  # type: ignore[no-any-return]

    def begin_epoch(self) -> None:
        """Search the change where a round begins."""
        if not self.mid_epoch and self.current_epoch % self.round_epochs == 0:
            self.change.copy_(self.worst_change())

    def worst_change(self) -> Tensor:
        """Search the change of all images that moves the masked net most from its own labels, ``[1, C, H, W]``."""
        change = torch.zeros_like(self.change)
        for _ in range(self.search_passes):
            for batch in self.passes("root"):
                images = batch["image"][batch["valid"]]
                own = self.logits(images).argmax(1)
                with torch.enable_grad():
                    loss = F.cross_entropy(self.logits(images + change.requires_grad_(True)), own)
                    [slope] = torch.autograd.grad(loss, change)
                change = (change + self.search_lr * slope).detach()
        return change * (self.budget / change.abs().mean().clamp(min=self.budget))

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Compute the loss with the change of this round."""
        images, labels = batch["image"], batch["label"]
        clean = F.cross_entropy(self.logits(images), labels)
        changed = F.cross_entropy(self.logits((images + self.change).clamp(0, 1)), labels)
        size = torch.stack([mask.abs().sum() for mask in self.masks]).sum()
        loss = self.alpha * clean + (1 - self.alpha) * changed + self.sparsity * size
        return {"loss": loss, "clean_loss": clean.detach(), "changed_loss": changed.detach()}

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        """Make a step, and clip the masks to [0, 1]."""
        super().optimizer_step(*args, **kwargs)
        for mask in self.masks:
            mask.data.clamp_(0, 1)

    def on_train_end(self) -> None:
        """Mask the suspect."""
        self.result()

    @torch.no_grad()
    def result(self) -> Classifier:
        """Give the suspect with the masks in its weights."""
        for name, weight in self.masked_weights().items():
            self.classifier.get_parameter(name).copy_(weight)
        return self.classifier

    def numbers(self) -> dict[str, Any]:
        """Give the mean of the masks."""
        return {"mean_mask": float(torch.cat([mask.detach().flatten() for mask in self.masks]).mean())}
