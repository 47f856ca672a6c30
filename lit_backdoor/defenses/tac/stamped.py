"""TAC's fine-tune against the stamps that would move latents along the perturbation (ours)."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from torch.nn import functional as F

from lit_backdoor.defenses.tac.fine_tune import TACFineTune
from lit_backdoor.errors import settings
from lit_backdoor.functional.latent_shift import distance_along
from lit_backdoor.models import Classifier
from lit_backdoor.models.latents import latents_and_logits
from lit_backdoor.stages.stamp_search import StampSearch

__all__ = ["TACStampFineTune"]


class TACStampFineTune(TACFineTune):
    r"""Fine-tune on images under the stamp that moves their latents farthest along s; not in the paper.

    .. math:: \mathrm{CE}(f(x), y) + \beta \omega \Bigl[\mathrm{CE}(f(x'), y)
        + \gamma \max\bigl(0,\ d(\phi(x') - \phi(x))\bigr)\Bigr]
        + \beta \sigma\, \mathrm{CE}(W (\phi(x) + s_p) + b,\ y)

    The stamp x' of a batch is one change of pixels for all of its images, searched anew (`StampSearch`; omega its
    weight) to maximize the distance d along s (`distance_along`) on the net as tuned so far. Latents are not shifted
    throughout: s largely overlaps with the clean features of class p, and a net makes shifted latents harmless by
    abandoning the class, so that nothing is classified as p any more, triggered or not.

    A trigger that no search finds outlives the stamps, as SIG's faint pattern does in some runs. So where sigma,
    ``shift``, is above 0, latents are shifted, too (the last term, that of `TACFineTune`), but in the first epochs
    only: the net abandons the class, and the backdoor with it; then it learns the class again under the stamps.

    Args:
        suspect: Path of a suspect bundle, or a classifier (a copy of it is tuned).
        target: The class p; or the path of a bundle of target classes.
        search: Search of the stamps; default `StampSearch`.
        movement: Weight gamma of the way that stamps move latents along s, in lengths of s, >= 0.
        beta: Weight of all that concerns stamps and shifted latents, >= 0.
        shift: Weight sigma of shifted latents in the first epochs, >= 0; .6 in the chains on CIFAR-10.
        shift_epochs: How many epochs these are.
        **options: Further arguments of `TACFineTune`.

    Raises:
        ValueError: If ``movement``, ``shift`` or ``shift_epochs`` is negative; else as `TACFineTune`.
    """

    def __init__(
        self,
        suspect: str | Classifier,
        target: int | str,
        search: StampSearch | None = None,
        movement: float = 3.0,
        beta: float = 1.0,
        shift: float = 0.0,
        shift_epochs: int = 1,
        **options: Any,
    ) -> None:
        super().__init__(suspect, target, beta, **options)
        for name, value in (("movement", movement), ("shift", shift), ("shift_epochs", shift_epochs)):
            if not value >= 0:
                raise ValueError(f"Expected {name} to be 0 or more, got {value}.")
        self.search = settings("search", search, StampSearch) or StampSearch()
        self.movement = movement
        self.shift = shift
        self.shift_epochs = shift_epochs

    @property
    def strength(self) -> float | Tensor:
        """What movement along s and shifted latents are weighed by, beside their weights: 1."""
        return 1.0

    def shifted(self, images: Tensor, latents: Tensor, labels: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Compute the term that beta weighs: the loss of stamped images, at first of shifted latents, too."""
        loss, logged = self.stamped(images, latents, labels)
        if self.shift and self.current_epoch < self.shift_epochs:
            loss = loss + self.strength * self.shift * super().shifted(images, latents, labels)[0]
        return loss, logged

    def stamped(self, images: Tensor, latents: Tensor, labels: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Compute the loss of images under the stamp, omega included.

        Args:
            images: x in [0, 1], ``[B, C, H, W]``.
            latents: phi(x), ``[B, d]``.
            labels: y, int64 ``[B]``.

        Returns:
            The loss, a scalar, and its parts.
        """

        def along(moved: Tensor) -> Tensor:
            return distance_along(moved, self.perturbations, labels, self.targets)

        found = self.search.stamped(
            self.classifier, images, lambda stamped: along(latents_and_logits(self.classifier, stamped)[0])
        )
        stamped, logits = latents_and_logits(self.classifier, found)
        of_stamped, moved = F.cross_entropy(logits.float(), labels), along(stamped - latents).relu()
        loss = self.search.weight * (of_stamped + self.strength * self.movement * moved)
        return loss, {"stamped_loss": of_stamped, "movement": moved}
