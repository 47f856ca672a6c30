"""TAC's fine-tune against the stamps that would move latents along the perturbation (ours)."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from torch.nn import functional as F

from lit_backdoor.defenses.stamp_search import StampSearch
from lit_backdoor.defenses.tac.fine_tune import TACFineTune
from lit_backdoor.functional.latent_shift import distance_along
from lit_backdoor.models import Classifier
from lit_backdoor.models.latents import latents_and_logits
from lit_backdoor.stages import Batch

__all__ = ["TACStampFineTune"]


class TACStampFineTune(TACFineTune):
    r"""Fine-tune on images under the stamp that moves their latents farthest along s; not in the paper.

    .. math:: \mathrm{CE}(f(x), y) + \omega\, \mathrm{CE}(f(x'), y) + \beta\, \mathrm{CE}(W (\phi(x) + s_p) + b, y)

    The stamp x' of a batch is one change of pixels for all of its images, searched anew (`StampSearch`; omega its
    weight) to maximize `distance_along` s on the net as tuned so far. Shifted latents are left out by default: much of
    s is what clean images of class p have, and a net takes the harm out of it by giving up the class, so that nothing
    is classified as p any more, triggered or not.

    Args:
        suspect: Path of a suspect bundle, or a classifier (a copy of it is tuned).
        target: The class p; or the path of a bundle of target classes.
        search: Search of the stamps; default `StampSearch`.
        beta: Weight of the shifted term, >= 0.
        **options: Further arguments of `TACFineTune`.

    Raises:
        ValueError: As `TACFineTune`.
    """

    def __init__(
        self,
        suspect: str | Classifier,
        target: int | str,
        search: StampSearch | None = None,
        beta: float = 0.0,
        **options: Any,
    ) -> None:
        super().__init__(suspect, target, beta, **options)
        self.search = search or StampSearch()

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Learn from one batch, and from the same stamped."""
        loss = super().training_step(batch, batch_idx)
        images, labels = self.lesson(batch)

        def movement(stamped: Tensor) -> Tensor:
            latents = latents_and_logits(self.classifier, stamped)[0]
            return distance_along(latents, self.perturbations, labels, self.targets)

        logits = self.classifier(self.search.stamped(self.classifier, images, movement))
        of_stamped = F.cross_entropy(logits.float(), labels)
        self.log_train(len(images), stamped_loss=of_stamped.detach())
        return loss + self.search.weight * of_stamped
