"""BTI-DBF (P): train a purifier that undoes the inverted trigger (Eq. 4-6, Sec. 3.3.2, App. B.2)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import cast

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.optim import Adam, Optimizer

from lit_backdoor.defenses.btidbf.inverting import Generator, Inverting
from lit_backdoor.defenses.btidbf.settings import Decoupling, InversionSettings
from lit_backdoor.errors import check_rate
from lit_backdoor.functional.decoupling import error
from lit_backdoor.models import Classifier, Frozen, Purified, UNet
from lit_backdoor.stages.base import Batch
from lit_backdoor.stages.phased import Span

__all__ = ["BTIDBFPurification"]


class BTIDBFPurification(Inverting):
    """Train a net before the frozen suspect that removes triggers; the result is a `Purified` suspect.

    Every image comes clean and generated. In every round after the first the trigger is inverted through the purifier,
    so that it learns what still passes. Image errors are in the classifier's normalized units, as in the release. The
    release also adds noise before the purifier when it is used; here a prediction is a function of the image.

    Args:
        suspect: Path of a suspect bundle, or a classifier; frozen.
        decoupling: Settings of the mask (Eq. 1).
        inversion: Settings of the generator (Eq. 2).
        generator: The net that makes triggers, or several to choose from by the votes; default a `WarpField` and a
            `PatternedUNet`.
        purifier: The net to train; default a `UNet`. After a warm-up it starts where the generator does, if their
            weights have the same shapes.
        rounds: Rounds R1. Paper and release: 5.
        purify_epochs: Epochs of the purifier in each round. Release: 30.
        lr: Learning rate of Adam on the purifier. Release: 1e-3.
        image_weight: Weight of the image error.
        feature_weight: Weight of the feature error.
        benign_weight: Weight of the benign loss (Eq. 6); 0 is the ablation of Fig. 8.

    Raises:
        ValueError: If the learning rate is negative or not finite; when run, if ``max_epochs`` contradicts rounds and
            phases.
    """

    def __init__(
        self,
        suspect: str | Classifier,
        decoupling: Decoupling | None = None,
        inversion: InversionSettings | None = None,
        generator: Generator | Sequence[Generator] | None = None,
        purifier: UNet | None = None,
        rounds: int = 5,
        purify_epochs: int = 4,
        lr: float = 2e-3,
        image_weight: float = 1.0,
        feature_weight: float = 1.0,
        benign_weight: float = 1.0,
    ) -> None:
        super().__init__(
            decoupling or Decoupling(epochs=1),
            inversion or InversionSettings(epochs=1, first_epochs=3, toward_target=True),
            generator,
            rounds,
            ("purify", purify_epochs),
        )
        self.given(suspect=suspect)
        self._purifier = purifier
        self.lr = check_rate("the purifier's lr", lr)
        self.image_weight, self.feature_weight, self.benign_weight = image_weight, feature_weight, benign_weight

    @property
    def subject(self) -> Classifier:
        """The suspect."""
        return self.net.module

    def build(self) -> None:
        """Open the suspect and make the nets."""
        self.net = Frozen(self.open_classifier())
        self.build_inversion()
        self.purifier = self._purifier or UNet(attention="none", start="small")

    def optimizers_by_phase(self) -> Mapping[str, Optimizer]:
        """Add the purifier's optimizer."""
        return {**super().optimizers_by_phase(), "purify": Adam(self.purifier.parameters(), lr=self.lr)}

    def begin_phase(self, span: Span) -> None:
        """Let the purifier start where the warm-up left the generator."""
        super().begin_phase(span)
        shapes, others = (
            {name: weight.shape for name, weight in net.state_dict().items()} for net in (self.purifier, self.generator)
        )
        if span == self.plan[1] and self.plan[0].phase == "warmup" and shapes == others:
            self.purifier.load_state_dict(self.generator.state_dict())

    def seen(self, span: Span, generated: Tensor) -> Tensor:
        """Look at generated images through the purifier, once it was trained."""
        return self.purifier(generated) if span.round else generated

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Compute the phase's loss."""
        return {"loss": self.purifying(batch)} if self.span.phase == "purify" else super().losses(batch)

    def purifying(self, batch: Batch) -> Tensor:
        """Compute Eq. 4 on one batch of root images."""
        images = batch["image"]
        features = self.features_of(self.subject, batch)
        with torch.no_grad():
            generated = self.triggered(images)
        purified = self.restoration(batch, generated, features)
        return purified + self.benign_weight * self.restoration(batch, images, features)

    def triggered(self, images: Tensor) -> Tensor:
        """Give the images that the purifier is to restore."""
        return cast(Tensor, self.generator(images)).to(images.dtype)

    def restoration(self, batch: Batch, inputs: Tensor, features: Tensor) -> Tensor:
        """Compute Eq. 5 or 6: inputs, purified, are to have the clean images' label, features and pixels."""
        norm = self.inversion.norm
        purified = self.purifier(inputs)
        found = self.features(self.subject, purified)
        image = error(purified, batch["image"], norm) / self.unit
        loss = F.cross_entropy(self.head(self.subject, found).float(), batch["label"]) + self.weight_of(image) * image
        return loss + self.feature_weight * error(found, features, norm)

    def weight_of(self, image: Tensor) -> float | Tensor:
        """Give the weight of a batch's image error."""
        return self.image_weight

    def result(self) -> Purified:
        """Give the suspect behind its purifier."""
        return Purified(self.purifier, self.subject)
