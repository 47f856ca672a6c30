"""FTrojan: two frequencies of the colors are raised."""

from __future__ import annotations

import torch
from scipy.fft import idctn
from torch import Tensor

from lit_backdoor.errors import check_share
from lit_backdoor.triggers.pattern import FixedPattern

__all__ = ["FTrojan"]

U = (0.0, -0.395, 2.032)  # what a unit of U and of V adds to red, green and blue
V = (1.140, -0.581, 0.0)


class FTrojan(FixedPattern):
    """Raise some coefficients of the block DCT of both chroma channels (U and V) by a constant.

    Wang et al., "An Invisible Black-Box Backdoor Attack Through Frequency Domain", ECCV 2022. DCT and color transform
    are linear, so the trigger is a fixed sum of cosines that is added to the image, before it is clipped. Blocks are
    cut at the image's edge. Images of one channel have no chroma; their only channel is changed.

    Args:
        magnitude: What is added to each coefficient of the orthonormal DCT, in units of [0, 1].
        bands: Frequencies (row, column) in a block.
        window: Side of a block.

    Raises:
        ValueError: If an argument is out of range, or (on call) images have not 1 or 3 channels.
    """

    def __init__(
        self,
        magnitude: float = 30 / 255,
        bands: tuple[tuple[int, int], ...] = ((15, 15), (31, 31)),
        window: int = 32,
    ) -> None:
        super().__init__()
        if not bands or not all(0 <= place < window for band in bands for place in band):
            raise ValueError(f"Expected bands from 0 to {window - 1} in a window of {window}, got {list(bands)}.")
        self.magnitude = check_share(f"the magnitude of {type(self).__name__}", magnitude, closed=True)
        self.bands, self.window = tuple(bands), window

    def make_pattern(self, channels: int, height: int, width: int) -> Tensor:
        """Make what is added, ``[channels, height, width]``."""
        if channels not in (1, 3):
            raise ValueError(f"Expected images with 1 or 3 channels, got {channels}.")
        spectrum = torch.zeros(self.window, self.window, dtype=torch.float64)
        for row, column in self.bands:
            spectrum[row, column] = self.magnitude
        block = torch.from_numpy(idctn(spectrum.numpy(), norm="ortho"))
        tiled = block.repeat(-(-height // self.window), -(-width // self.window))[:height, :width]
        color = torch.tensor(U) + torch.tensor(V) if channels == 3 else torch.ones(1)
        return color[:, None, None] * tiled.float()

    def forward(self, images: Tensor, index: Tensor) -> Tensor:
        """Add the cosines."""
        return (images + self.pattern(images).to(images.dtype)).clamp(0, 1)
