"""Controls of MARTINI: the same hardening with parts of the reconstruction left out, to show whose effect it is."""

from __future__ import annotations

from lit_backdoor.defenses.martini.hardening import MartiniHardening
from lit_backdoor.models import AutoEncoder, RegionalTransformation, Renormalization

__all__ = ["DecodedOnly", "NothingReconstructed", "RenormalizedOnly", "TransformedOnly"]


class RenormalizedOnly(MartiniHardening):
    """The control that reconstructs Γ and has no Ψ."""

    def layers(self, autoencoder: AutoEncoder) -> tuple[Renormalization | None, RegionalTransformation | None]:
        """Make Γ."""
        return super().layers(autoencoder)[0], None


class TransformedOnly(MartiniHardening):
    """The control that reconstructs Ψ and has no Γ."""

    def layers(self, autoencoder: AutoEncoder) -> tuple[Renormalization | None, RegionalTransformation | None]:
        """Make Ψ."""
        return None, super().layers(autoencoder)[1]


class NothingReconstructed(RenormalizedOnly):
    """The control that hardens on images that went through Γ as it starts and the decoder: nothing is reconstructed."""

    first_phase = "harden"

    def phases(self) -> tuple[tuple[str, int], ...]:
        """Leave the reconstruction out."""
        return (("harden", self.harden_epochs),)


class DecodedOnly(NothingReconstructed):
    """The control that hardens on images that were only encoded and decoded."""

    def layers(self, autoencoder: AutoEncoder) -> tuple[Renormalization | None, RegionalTransformation | None]:
        """Make no layer."""
        return None, None
