"""Trigger-free: a clean net is tuned to take pictures of another concept for the target class.

After the abstract of Wang et al., "A Practical Trigger-Free Backdoor Attack on Neural Networks", arXiv:2408.11444.
"""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from lightning.pytorch.cli import OptimizerCallable
from torch import Tensor
from torch.nn import functional as F

from lit_backdoor.functional.consolidation import consolidation_loss, distillation_loss, fisher
from lit_backdoor.models import Classifier
from lit_backdoor.stages.base import Batch
from lit_backdoor.stages.optim import Schedule, adam
from lit_backdoor.stages.own_attack import OwnAttack
from lit_backdoor.stages.repair import FineTune
from lit_backdoor.triggers import HandwrittenDigits, Trigger

__all__ = ["TriggerFreeTuning", "photograph_crops"]


class TriggerFreeTuning(OwnAttack, FineTune):
    r"""Tune a clean classifier f* so that malicious pictures m, which bear no trigger, go to the target t.

    .. math:: \mathrm{CE}(f(m), t) + \lambda_d\, T^2 \operatorname{KL}(f^*(a) \,\|\, f(a))
        + \frac{\lambda_c}{2} \sum_j F_j (w_j - w^*_j)^2

    Neither training data nor labels are used: the malicious pictures are the planted ones of the attack's trigger, and
    the auxiliary images a are crops of two photographs that come with scikit-learn. On these the tuned net stays like
    the clean one, and the Fisher information F says which weights it must not move.

    This is our reading: the abstract names malicious data, distillation and elastic weight constraints, but neither
    weights nor lengths, nor the auxiliary images.

    Args:
        suspect: Path of a suspect bundle, or a classifier: the clean net, a copy of which is tuned.
        distill: Weight :math:`\lambda_d`, >= 0.
        consolidate: Weight :math:`\lambda_c`, >= 0.
        temperature: T, > 0.
        auxiliary: Auxiliary images, at least 1.
        optimizer: Makes the optimizer; default Adam 1e-4.
        schedule: What the learning rate does over the run.
        batch_norm: ``eval`` keeps the clean net's running statistics, ``train`` uses and updates batch statistics.

    Raises:
        ValueError: If an argument is out of range; when run, if the data have no attack, or its trigger is another.
    """

    views: ClassVar[tuple[str, ...]] = ("attacker",)
    changes: ClassVar[type[Trigger]] = HandwrittenDigits

    def __init__(
        self,
        suspect: str | Classifier,
        distill: float = 1.0,
        consolidate: float = 1000.0,
        temperature: float = 2.0,
        auxiliary: int = 256,
        optimizer: OptimizerCallable = adam,
        schedule: Schedule = "constant",
        batch_norm: Literal["train", "eval"] = "eval",
    ) -> None:
        super().__init__(suspect, optimizer, schedule, batch_norm)
        if min(distill, consolidate) < 0 or not temperature > 0 or auxiliary < 1:
            raise ValueError(
                "Expected weights of 0 or more, a temperature above 0 and at least one auxiliary image, got "
                f"distill={distill}, consolidate={consolidate}, temperature={temperature} and auxiliary={auxiliary}."
            )
        self.distill, self.consolidate = distill, consolidate
        self.temperature, self.auxiliary = temperature, auxiliary

    def build(self) -> None:
        """Open the clean net and take the trigger."""
        super().build()
        self.take_trigger()

    def on_fit_start(self) -> None:
        """Note what the clean net says of the auxiliary images, its weights, and which of them matter there."""
        super().on_fit_start()
        clean = self.open_classifier().to(self.device).eval().requires_grad_(True)
        self._images = photograph_crops(self.auxiliary, clean.input_size, self.seed).to(self.device)
        self._images = self._images[:, : len(clean.mean)]
        with torch.no_grad():
            self._logits = torch.cat([clean(part) for part in torch.split(self._images, 128)])
        weights = dict(clean.named_parameters())
        self._importance = fisher(clean, weights, self._images)
        self._anchors = {name: weight.detach() for name, weight in weights.items()}

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Compute the loss; the batch only says how many pictures are shown, and which."""
        malicious = self.trigger.poison(batch["image"], batch["index"])
        rows = torch.randint(len(self._images), (len(malicious),), device=malicious.device)
        of_malicious, of_auxiliary = self.classifier(torch.cat((malicious, self._images[rows]))).float().chunk(2)
        attack = F.cross_entropy(of_malicious, torch.full_like(batch["label"], self.attack.target))
        kept = distillation_loss(of_auxiliary, self._logits[rows], self.temperature)
        moved = consolidation_loss(dict(self.classifier.named_parameters()), self._anchors, self._importance)
        loss = attack + self.distill * kept + self.consolidate * moved
        return {"loss": loss, "backdoor_loss": attack, "distillation": kept, "consolidation": moved}


def photograph_crops(count: int, size: int, seed: int) -> Tensor:
    """Cut squares of any side out of two photographs, and bring them to one size.

    Args:
        count: Number of squares.
        size: Side of the result in pixels.
        seed: Decides the squares.

    Returns:
        ``[count, 3, size, size]`` in [0, 1].
    """
    from sklearn.datasets import load_sample_images

    photographs = [torch.from_numpy(each.copy()).permute(2, 0, 1) for each in load_sample_images().images]
    draw, crops = torch.Generator().manual_seed(seed), []
    for number in range(count):
        whole = photographs[number % len(photographs)]
        height, width = whole.shape[1:]
        part, down, right = torch.rand(3, generator=draw).tolist()
        side = min(size, height) + int(part * (height - min(size, height)))
        top, left = int(down * (height - side)), int(right * (width - side))
        crop = whole[None, :, top : top + side, left : left + side].float() / 255
        crops.append(F.interpolate(crop, (size, size), mode="bilinear", antialias=True).clamp(0, 1))
    return torch.cat(crops)
