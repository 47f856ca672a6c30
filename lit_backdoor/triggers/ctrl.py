"""CTRL: a frequency trigger that is stronger at test time."""

from __future__ import annotations

from torch import Tensor

from lit_backdoor.errors import check_share
from lit_backdoor.triggers.ftrojan import FTrojan

__all__ = ["Ctrl"]


class Ctrl(FTrojan):
    """Raise the coefficients that `FTrojan` raises, more at test time than in planted rows; with clean labels.

    Li et al., "An Embarrassingly Simple Backdoor Attack on Self-Supervised Learning", ICCV 2023, here against a
    supervised classifier.

    Args:
        magnitude: What is added to each coefficient in training, in units of [0, 1].
        bands: As in `FTrojan`.
        window: As in `FTrojan`.
        test_magnitude: What is added at test time.

    Raises:
        ValueError: As `FTrojan` does.
    """

    def __init__(
        self,
        magnitude: float = 50 / 255,
        bands: tuple[tuple[int, int], ...] = ((15, 15), (31, 31)),
        window: int = 32,
        test_magnitude: float = 100 / 255,
    ) -> None:
        super().__init__(magnitude, bands, window)
        self.test_magnitude = check_share("test_magnitude of Ctrl", test_magnitude, closed=True)

    def forward(self, images: Tensor, index: Tensor) -> Tensor:
        """Add the cosines as at test time."""
        pattern = self.pattern(images).to(images.dtype)
        return (images + self.test_magnitude / self.magnitude * pattern).clamp(0, 1)

    def poison(self, images: Tensor, index: Tensor) -> Tensor:
        """Add the weaker cosines."""
        return super().forward(images, index)

    def cover(self, images: Tensor, index: Tensor) -> Tensor:
        """Stamp as `poison` does."""
        return self.poison(images, index)
