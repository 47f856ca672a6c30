"""I-BAU's fine-tune."""

from __future__ import annotations

import math
from functools import partial
from typing import Literal

import torch
from lightning.pytorch.cli import OptimizerCallable
from torch import Tensor
from torch.nn import functional as F

from lit_backdoor.errors import check_share
from lit_backdoor.functional.hypergradient import implicit_surrogate
from lit_backdoor.functional.precision import no_autocast
from lit_backdoor.models import Classifier
from lit_backdoor.stages import Batch, FineTune
from lit_backdoor.stages.optim import Schedule, adam

__all__ = ["ImplicitUnlearning"]


class ImplicitUnlearning(FineTune):
    r"""Fine-tune a suspect against the one change of all images that it is most wrong on (I-BAU).

    .. math:: \min_\theta \mathrm{CE}\bigl(f_\theta(x + \delta(\theta)),\ y\bigr) \quad \text{with} \quad
        \delta(\theta) = \arg\min_\delta\, -\mathrm{CE}\bigl(f_\theta(x + \delta),\ y\bigr) + c \|\delta\|_2^2

    An epoch is a round. At its start delta is searched from 0 by gradient descent over the root set, with the suspect
    in eval mode. Then each batch makes one step along the hypergradient (`implicit_surrogate`), in full precision,
    since it takes second derivatives. As in the release, changed images may leave [0, 1]. On several devices each
    process searches over the whole root set.

    Args:
        suspect: Path of a suspect bundle, or a classifier (a copy of it is tuned).
        share: Share of each batch that is changed in the outer loss, in (0, 1], at least one image. Paper: 1; release:
            .01.
        penalty: c >= 0. Release: .001.
        search_lr: Learning rate of the search, > 0. Release: 10.
        search_passes: Passes over the root set in each search, one step per evaluation batch. Release: 1, of more
            batches.
        step: Step size of the descent that the hypergradient assumes, > 0. Release: .1.
        iterations: Iterations of its fixed point, >= 0. Release: 5.
        optimizer: Makes the optimizer; default Adam 1e-4, the release's.
        schedule: What the learning rate does over the run.
        batch_norm: ``train`` uses and updates batch statistics, ``eval`` keeps the suspect's running ones (release).

    Raises:
        ValueError: If a number is out of range or an option unknown.
    """

    change: Tensor

    def __init__(
        self,
        suspect: str | Classifier,
        share: float = 1.0,
        penalty: float = 0.001,
        search_lr: float = 10.0,
        search_passes: int = 10,
        step: float = 0.1,
        iterations: int = 5,
        optimizer: OptimizerCallable = adam,
        schedule: Schedule = "constant",
        batch_norm: Literal["train", "eval"] = "eval",
    ) -> None:
        super().__init__(suspect, optimizer, schedule, batch_norm)
        self.share = check_share("share", share, closed=True)
        for name, value, least in (
            ("penalty", penalty, 0),
            ("search_passes", search_passes, 1),
            ("iterations", iterations, 0),
        ):
            if not value >= least:
                raise ValueError(f"Expected {name} of at least {least}, got {value}.")
        if not 0 < search_lr < math.inf or not 0 < step < math.inf:
            raise ValueError(f"Expected search_lr and step above 0 and finite, got {search_lr} and {step}.")
        self.penalty, self.search_lr, self.search_passes = penalty, search_lr, search_passes
        self.step, self.iterations = step, iterations

    def build(self) -> None:
        """Open the suspect, and make room for the change."""
        super().build()
        self.register_buffer("change", self.classifier.example())  # saved: a run resumed mid-epoch does not search

    def begin_epoch(self) -> None:
        """Search the change against the suspect as tuned so far."""
        super().begin_epoch()
        if self.mid_epoch:
            return
        change = torch.zeros_like(self.change)
        for _ in range(self.search_passes):
            for batch in self.passes("root", self.classifier):
                kept = batch["valid"]
                with torch.enable_grad():
                    change.requires_grad_(True)
                    loss = self._inner(batch["image"][kept], batch["label"][kept], change)
                    [slope] = torch.autograd.grad(loss, change)
                change = (change - self.search_lr * slope).detach()
        self.change.copy_(change)

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Compute the outer loss, whose gradient is the hypergradient."""
        images, labels = batch["image"], batch["label"]
        changed = torch.zeros(len(images), 1, 1, 1, device=images.device)
        changed[: max(1, int(self.share * len(images)))] = 1

        def outer(change: Tensor) -> Tensor:
            return F.cross_entropy(self.classifier(images + changed * change).float(), labels)

        with no_autocast(images):
            inner = partial(self._inner, images, labels)
            loss = implicit_surrogate(inner, outer, self.change, self.step, self.iterations)
        return {"loss": loss, "length": self.change.norm()}

    def _inner(self, images: Tensor, labels: Tensor, change: Tensor) -> Tensor:
        """Compute what the change minimizes."""
        entropy = F.cross_entropy(self.classifier(images + change).float(), labels)
        return self.penalty * change.square().sum() - entropy
