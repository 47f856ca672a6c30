"""ATClean's adaptive attack: covers that carry the trigger under noise."""

from __future__ import annotations

import torch
from torch import Tensor

from lit_backdoor.functional.precision import no_autocast
from lit_backdoor.triggers.base import Trigger
from lit_backdoor.triggers.pattern import gaussian_per_index

__all__ = ["NoisyCover"]


class NoisyCover(Trigger):
    """Any trigger, with cover samples that are triggered and noisy: ``{(b(x), c)} and {(b(x) + delta, y)}``.

    The adaptive attack of the ATClean paper, which says neither which norm of delta it means nor in which units;
    here it is the L2 norm of each image's noise in [0, 1] pixels, before the sum is clipped to [0, 1].

    Args:
        trigger: The trigger b.
        norm: L2 norm of the noise (the paper tries 1, 5 and 10).
        seed: Seed of the noise.

    Raises:
        ValueError: If the norm is not positive.
    """

    def __init__(self, trigger: Trigger, norm: float = 5.0, seed: int = 0) -> None:
        super().__init__()
        if norm <= 0:
            raise ValueError(f"Expected the noise's norm to be positive, got {norm}.")
        self.trigger, self.norm, self.seed = trigger, norm, seed
        self.alters_benign = trigger.alters_benign

    def noise(self, images: Tensor, index: Tensor) -> Tensor:
        """Draw each row's noise, float32 of the images' shape and exactly of norm ``norm``."""
        with no_autocast(images):
            flat = gaussian_per_index(index, images.shape[1:].numel(), self.seed)
            flat *= self.norm / flat.square().sum(1, keepdim=True).sqrt_()
        return flat.view(images.shape)

    def forward(self, images: Tensor, index: Tensor) -> Tensor:
        """Stamp as the inner trigger does at test time."""
        stamped: Tensor = self.trigger(images, index)
        return stamped

    def poison(self, images: Tensor, index: Tensor) -> Tensor:
        """Stamp as the inner trigger does in the training set."""
        return self.trigger.poison(images, index)

    def cover(self, images: Tensor, index: Tensor) -> Tensor:
        """Stamp as in the training set and add the noise."""
        stamped = self.trigger.poison(images, index)
        return (stamped + self.noise(stamped, index).to(stamped.dtype)).clamp(0, 1)

    def benign(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Change clean rows as the inner trigger does."""
        return self.trigger.benign(images, generator)
