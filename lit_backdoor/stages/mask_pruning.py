"""Pruning of batch-norm channels by masks trained on root data, with a threshold chosen on held-out root data."""

from __future__ import annotations

from abc import abstractmethod
from operator import itemgetter
from typing import Any, ClassVar, Literal

import torch
from lightning.pytorch.cli import OptimizerCallable
from torch import Tensor, nn
from torch.func import functional_call
from torch.optim import SGD, Optimizer

from lit_backdoor.errors import check_share
from lit_backdoor.metrics import accuracy, attack_success_rate
from lit_backdoor.models import Classifier
from lit_backdoor.models.channels import Channels
from lit_backdoor.stages.base import Batch
from lit_backdoor.stages.held_out import is_held_out
from lit_backdoor.stages.repair import Mitigation

__all__ = ["MaskPruning", "OracleThreshold", "sgd_for_masks"]

THRESHOLDS = tuple(step / 20 for step in range(1, 19))  # .05 to .9


def sgd_for_masks(parameters: Any) -> Optimizer:
    """Make SGD for masks: learning rate .2, momentum .9."""
    return SGD(parameters, lr=0.2, momentum=0.9)


class MaskPruning(Mitigation):
    """Train a mask in [0, 1] over all batch-norm channels, and prune the channels whose mask is below a threshold.

    A subclass gives the `objective` of the masks. The threshold is the highest of .05, .1, … .9 at which the pruned
    suspect keeps its accuracy on root images that no step saw. Norms use batch statistics in training.

    Args:
        suspect: Path of a suspect bundle, or a classifier (a copy of it is pruned).
        optimizer: Makes the optimizer of the masks; default SGD .2 with momentum .9.
        tolerance: Share of the held-out accuracy that pruning may cost, in (0, 1).
        held_out: Share of the root set that is held out, in (0, 1).

    Raises:
        ValueError: If a share is out of range; when run, if the suspect has no batch norm.
    """

    selection: ClassVar[Literal["none", "root", "oracle"]] = "root"

    def __init__(
        self,
        suspect: str | Classifier,
        optimizer: OptimizerCallable = sgd_for_masks,
        tolerance: float = 0.05,
        held_out: float = 0.2,
    ) -> None:
        super().__init__(suspect)
        self.optimizer = optimizer
        self.tolerance = check_share("the accuracy that pruning may cost", tolerance)
        self.held_out = check_share("the share of held-out root images", held_out)
        self.threshold = 0.0
        self._stale = True  # whether masks changed since the suspect was pruned

    def build(self) -> None:
        """Open the suspect, note the weights and biases of its norms, and make the masks, all 1."""
        super().build()
        self.classifier.requires_grad_(False)
        self.channels = Channels(self.classifier)
        self.gain: Tensor
        self.register_buffer("gain", self.channels.row("weight"))
        self.masks = nn.Parameter(torch.ones(self.channels.count))

    def configure_optimizers(self) -> Any:
        """Make the optimizer of the masks."""
        return self.optimizer([self.masks])

    @abstractmethod
    def objective(self, images: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """Give ``loss``, which the masks minimize, and what is logged with it."""
        raise NotImplementedError

    def masked(self, net: nn.Module, images: Tensor, **rows: Tensor) -> Tensor:
        """Give the logits of a net whose norms have other weights or biases, given as rows of `Channels`."""
        own = {name: buffer.clone() for name, buffer in net.named_buffers()}  # running statistics stay as they are
        return functional_call(net, {**own, **self.channels.named(**rows)}, (images,)).float()  # type: ignore[no-any-return]

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Compute the objective of the rows that are not held out; nothing where there are none."""
        kept = ~is_held_out(self, batch, self.held_out)
        return self.objective(batch["image"][kept], batch["label"][kept]) if kept.any() else {}

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> int | None:
        """Note that the masks change."""
        self._stale = True
        return super().on_train_batch_start(batch, batch_idx)

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        """Make a step, and clip the masks to [0, 1]."""
        super().optimizer_step(*args, **kwargs)
        self.masks.data.clamp_(0, 1)

    def on_train_end(self) -> None:
        """Prune the suspect."""
        self.result()

    def result(self) -> Classifier:
        """Give the pruned suspect; the threshold is chosen anew if the masks changed."""
        if self._stale:
            self.threshold = self.choose()
            self.prune(self.threshold)
            self._stale = False
        return self.classifier

    def prune(self, threshold: float) -> None:
        """Set the weights of channels whose mask is below the threshold to 0, all others to the suspect's."""
        self.channels.write(weight=self.gain * (self.masks >= threshold))

    def choose(self) -> float:
        """Choose the highest threshold that keeps the held-out accuracy."""
        return max(self.allowed())

    def allowed(self) -> list[float]:
        """List the thresholds that keep the accuracy, 0 among them, which prunes nothing."""
        cuts = {each: int((self.masks < each).sum()) for each in (0.0, *THRESHOLDS)}
        found: dict[int, float] = {}  # thresholds that prune the same channels are measured once
        for threshold, cut in cuts.items():
            if cut not in found:
                found[cut] = self.accuracy(threshold)
        return [each for each, cut in cuts.items() if found[cut] >= (1 - self.tolerance) * found[0]]

    def accuracy(self, threshold: float) -> float:
        """Measure the accuracy on held-out root images of the suspect as pruned by a threshold."""
        self.prune(threshold)
        return self.root_accuracy(self.classifier, lambda batch: is_held_out(self, batch, self.held_out))

    def numbers(self) -> dict[str, Any]:
        """Give the threshold and the number of pruned channels."""
        return {"threshold": self.threshold, "pruned_channels": int((self.masks < self.threshold).sum())}


class OracleThreshold(MaskPruning):
    """Choose the threshold of the lowest ASR on triggered test images: for comparisons, never a defense.

    BackdoorBench chooses so, among thresholds that keep the accuracy on test images. Arguments as in `MaskPruning`.
    """

    selection: ClassVar[Literal["none", "root", "oracle"]] = "oracle"

    def choose(self) -> float:
        """Choose by ASR among the thresholds that keep the test accuracy."""
        return min(self.allowed(), key=self.success)

    def accuracy(self, threshold: float) -> float:
        """Measure the accuracy on clean test images."""
        self.prune(threshold)
        return self.measured(accuracy, self.classifier, "clean", itemgetter("valid"))

    def success(self, threshold: float) -> float:
        """Measure the ASR on triggered test images."""
        self.prune(threshold)
        return self.measured(attack_success_rate, self.classifier, "triggered", itemgetter("eligible"))
