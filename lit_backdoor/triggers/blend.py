"""Blend (Chen et al. 2017): a pattern shines through the whole image."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from lit_backdoor.errors import check_share
from lit_backdoor.triggers.base import Trigger
from lit_backdoor.triggers.patterns import gaussian_noise, picture, uniform_noise

__all__ = ["Blend"]


class Blend(Trigger):
    """Mix the image with a pattern: x' = (1 - alpha) x + alpha t.

    Args:
        alpha: Share of the pattern, in (0, 1). ATClean, BackdoorBench: .2 of an image; BTI-DBF: .1 of Gaussian noise.
        pattern: ``noise`` (uniform) or ``gaussian`` (clipped to [0, 1]), drawn from ``seed``, or ``file``.
        seed: Seed of the noise.
        file: Path of an image, brought to the images' size, for ``file``.

    Raises:
        ValueError: If alpha is no share or the file is missing.
    """

    def __init__(
        self,
        alpha: float = 0.2,
        pattern: Literal["noise", "gaussian", "file"] = "noise",
        seed: int = 0,
        file: str | None = None,
    ) -> None:
        super().__init__()
        if pattern == "file" and file is None:
            raise ValueError("Expected file= to name an image for a blend with pattern='file'.")
        self.alpha = check_share("the blend's alpha", alpha)
        self.pattern, self.seed, self.file = pattern, seed, file
        self._made: dict[tuple[torch.Size, torch.device], Tensor] = {}

    def forward(self, images: Tensor, index: Tensor) -> Tensor:
        """Blend the pattern in."""
        where = (images.shape[1:], images.device)
        if where not in self._made:
            channels, height, width = images.shape[1:]
            if self.pattern == "file":
                made = picture(str(self.file), channels, height, width)
            else:
                draw = uniform_noise if self.pattern == "noise" else gaussian_noise
                made = draw(channels, height, width, self.seed)
            self._made[where] = made.to(images.device)
        return torch.lerp(images, self._made[where].to(images.dtype).expand_as(images), self.alpha)
