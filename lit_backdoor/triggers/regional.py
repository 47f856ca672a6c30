"""A trigger that changes features instead of pixels: MARTINI's."""

from __future__ import annotations

from torch import Tensor

from lit_backdoor.models.autoencoder import AutoEncoder
from lit_backdoor.models.trigger_layers import RegionalTransformation, Renormalization
from lit_backdoor.triggers.base import Trigger

__all__ = ["RegionalTrigger"]


class RegionalTrigger(Trigger):
    r"""Renormalize images, encode them, transform the features and decode (MARTINI, Tao et al., Fig. 3).

    :math:`\hat x = f^{-1}(\Psi(f(\Gamma(x))))`. The row does not matter. Without Γ and Ψ images are only decoded.

    Args:
        autoencoder: f and its decoder, trained for images of the size to stamp; frozen.
        renormalization: Γ, or None.
        transformation: Ψ, or None.
    """

    def __init__(
        self,
        autoencoder: AutoEncoder,
        renormalization: Renormalization | None = None,
        transformation: RegionalTransformation | None = None,
    ) -> None:
        super().__init__()
        self.autoencoder = autoencoder.requires_grad_(False).eval()
        self.renormalization = renormalization
        self.transformation = transformation

    def train(self, mode: bool = True) -> RegionalTrigger:
        """Keep the autoencoder in eval mode."""
        super().train(mode)
        self.autoencoder.eval()
        return self

    def forward(self, images: Tensor, index: Tensor | None = None) -> Tensor:
        """Stamp images; gradients reach Γ and Ψ.

        Raises:
            ValueError: If the images are not of the autoencoder's size.
        """
        inputs = images if self.renormalization is None else self.renormalization(images)
        maps = self.autoencoder.encode(inputs)
        if self.transformation is not None:
            maps = self.transformation(maps)
        return self.autoencoder.decode(maps).to(images.dtype)
