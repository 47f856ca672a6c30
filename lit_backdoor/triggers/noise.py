"""ATClean's adaptive attack (Table 10): triggered images with noise keep their label, so collisions are penalized."""

from __future__ import annotations

from torch import Tensor

from lit_backdoor.triggers.base import Trigger
from lit_backdoor.triggers.patterns import row_noise

__all__ = ["NoisyCover"]


class NoisyCover(Trigger):
    """Poison with a trigger, and cover with the same trigger plus Gaussian noise of a fixed length.

    The paper gives the noise's norm as 1, 5 or 10 without its scale; here it is the L2 norm over an image's pixels in
    [0, 1], exact before clipping to [0, 1]. Give the attack a cover rate equal to its poisoning rate.

    Args:
        trigger: The trigger proper.
        norm: L2 norm of the noise, > 0.
        seed: Seed of the noise, which is a function of the row.

    Raises:
        ValueError: If the norm is not positive.
    """

    def __init__(self, trigger: Trigger, norm: float = 5.0, seed: int = 0) -> None:
        super().__init__()
        if norm <= 0:
            raise ValueError(f"Expected the noise's norm above 0, got {norm}.")
        self.trigger, self.norm, self.seed = trigger, norm, seed

    def forward(self, images: Tensor, index: Tensor) -> Tensor:
        """Stamp the trigger proper."""
        stamped: Tensor = self.trigger(images, index)
        return stamped

    def poison(self, images: Tensor, index: Tensor) -> Tensor:
        """Plant the trigger proper."""
        return self.trigger.poison(images, index)

    def cover(self, images: Tensor, index: Tensor) -> Tensor:
        """Stamp the trigger and add the row's noise."""
        covered: Tensor = self.trigger.poison(images, index) + self.noise(images, index)
        return covered.clamp(0, 1)

    def noise(self, images: Tensor, index: Tensor) -> Tensor:
        """Give each row's noise, ``[B, C, H, W]``, of L2 norm ``norm`` per image."""
        draws = row_noise(index, images[0].numel(), self.seed)
        scaled: Tensor = self.norm * draws / draws.norm(dim=1, keepdim=True)
        return scaled.view_as(images).to(images.dtype)
