"""Triggers whose tensors an attacker finds before a victim is trained."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor

from lit_backdoor.functional.trigger_inversion import add_change
from lit_backdoor.triggers.base import Trigger
from lit_backdoor.triggers.patch import Patch

__all__ = ["Learned", "LearnedPatch", "UniversalNoise"]


class Learned(Trigger):
    """A trigger with tensors that are found for images of one size; until then they change no image.

    Attributes:
        found: Names of the tensors, which are buffers.
    """

    found: ClassVar[tuple[str, ...]]

    def hold(self, **tensors: Tensor) -> None:
        """Keep copies of what was found."""
        for name, value in tensors.items():
            self.register_buffer(name, value.detach().clone(memory_format=torch.contiguous_format))

    def make_room(self, state: Mapping[str, Tensor]) -> None:
        """Make room for what was found before the state was saved."""
        super().make_room(state)
        self.hold(**{name: torch.zeros_like(state[name]) for name in self.found if name in state})


class UniversalNoise(Learned):
    """Add one noise to all images, at test time a multiple of it: ``x' = clip(x + a n)``.

    Args:
        magnify: Factor a at test time, > 0; planted rows get the noise itself.
        channels: Channels of the images.

    Raises:
        ValueError: If the factor is not positive; on call, if the noise was found for images of another size.
    """

    found: ClassVar[tuple[str, ...]] = ("noise",)
    noise: Tensor

    def __init__(self, magnify: float = 1.0, channels: int = 3) -> None:
        super().__init__()
        if not magnify > 0:
            raise ValueError(f"Expected magnify of UniversalNoise above 0, got {magnify}.")
        self.magnify = magnify
        self.register_buffer("noise", torch.zeros(channels, 1, 1))

    def forward(self, images: Tensor, index: Tensor) -> Tensor:
        """Add the noise as at test time."""
        return self._added(images, self.magnify)

    def poison(self, images: Tensor, index: Tensor) -> Tensor:
        """Add the noise as it was found."""
        return self._added(images, 1.0)

    def cover(self, images: Tensor, index: Tensor) -> Tensor:
        """Stamp as `poison` does."""
        return self.poison(images, index)

    def _added(self, images: Tensor, factor: float) -> Tensor:
        if self.noise.shape[1:] not in ((1, 1), images.shape[2:]):
            raise ValueError(
                f"Expected images of the size that the noise was found for, {list(self.noise.shape[1:])}, got "
                f"{list(images.shape[2:])}. Find it at that size."
            )
        return add_change(images, (factor * self.noise)[None])[0].to(images.dtype)


class LearnedPatch(Patch):
    """Replace a square by a pattern that is found; it begins as seeded noise.

    Args:
        size: Side in pixels.
        place: As in `Patch`.
        seed: Seed of the noise.
        channels: Channels of the images.

    Raises:
        ValueError: As `Patch` does.
    """

    values: Tensor

    def __init__(
        self, size: int = 6, place: str | tuple[int, int] = "bottom_right", seed: int = 0, channels: int = 3
    ) -> None:
        super().__init__(size, place, "noise", seed)
        self.register_buffer("values", self.make_pattern(channels, self.height, self.width))

    def pattern(self, images: Tensor) -> Tensor:
        """Give the pattern, ``[channels, size, size]`` in [0, 1]."""
        return self.values
