"""The channels of a net's batch norms in one row: masks, noise and scores are vectors over it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm as BatchNorm

from lit_backdoor.models.base import Classifier, batch_norms, evaluating

__all__ = ["Channels", "norm_scale", "producers"]


class Channels:
    """The channels of all batch norms of a classifier that have weights, in the order of its modules.

    Args:
        classifier: The classifier; it changes in `write` only.

    Attributes:
        count: How many channels there are.

    Raises:
        ValueError: If no batch norm has weights.
    """

    def __init__(self, classifier: Classifier) -> None:
        named = {module: name for name, module in classifier.named_modules()}
        self.norms = {named[norm]: norm for norm in batch_norms(classifier) if norm.affine}
        if not self.norms:
            raise ValueError(
                f"Expected a classifier with batch norms, got {type(classifier.net).__name__} without any: this "
                "defense prunes their channels. Choose another defense for it, such as fine_tune."
            )
        self._sizes = [norm.num_features for norm in self.norms.values()]
        self.count = sum(self._sizes)

    def row(self, name: str) -> Tensor:
        """Give all weights, or biases, as a vector ``[count]``, detached."""
        return torch.cat([getattr(norm, name).detach() for norm in self.norms.values()])

    def named(self, **rows: Tensor) -> dict[str, Tensor]:
        """Give vectors ``[count]`` as the norms' weights or biases by name, as `functional_call` takes them."""
        return {
            f"{name}.{what}": part
            for what, row in rows.items()
            for name, part in zip(self.norms, torch.split(row, self._sizes), strict=True)
        }

    @torch.no_grad()
    def write(self, **rows: Tensor) -> None:
        """Set the weights, or biases, of all norms from vectors ``[count]``."""
        for what, row in rows.items():
            for norm, part in zip(self.norms.values(), torch.split(row, self._sizes), strict=True):
                getattr(norm, what).copy_(part)


def producers(classifier: Classifier) -> list[tuple[nn.Conv2d, BatchNorm]]:
    """Pair each convolution with the batch norm that normalizes its output, found by running the net.

    Norms without weights or running statistics are left out, and so are those that take anything else, such as the sum
    of two branches.
    """
    made: dict[int, tuple[Tensor, nn.Conv2d]] = {}  # outputs are kept, so that no other tensor gets their identity
    pairs: dict[BatchNorm, nn.Conv2d] = {}

    def note(conv: nn.Conv2d, _inputs: Any, output: Tensor) -> None:
        made[id(output)] = (output, conv)

    def match(norm: BatchNorm, inputs: tuple[Tensor, ...]) -> None:
        if id(inputs[0]) in made and norm.affine and norm.running_var is not None:
            pairs[norm] = made[id(inputs[0])][1]

    handles = [norm.register_forward_pre_hook(match) for norm in batch_norms(classifier)]
    handles += [conv.register_forward_hook(note) for conv in classifier.modules() if isinstance(conv, nn.Conv2d)]
    try:
        with evaluating(classifier):
            classifier(classifier.example())
    finally:
        for handle in handles:
            handle.remove()
    return [(conv, norm) for norm, conv in pairs.items()]


def norm_scale(norm: BatchNorm) -> Tensor:
    """Give what a batch norm with weights and running statistics multiplies each channel by in eval mode, ``[C]``."""
    assert norm.running_var is not None
    return norm.weight / (norm.running_var + norm.eps).sqrt()
