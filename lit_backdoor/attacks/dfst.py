"""DFST: a style as trigger, and training that takes simple substitutes of the trigger away.

Cheng et al., "Deep Feature Space Trojan Attack of Neural Networks by Controlled Detoxification", AAAI 2021.
"""

from __future__ import annotations

import torch
from lightning.pytorch.cli import OptimizerCallable
from torch import Tensor
from torch.nn import functional as F

from lit_backdoor.attacks.redrawn import RedrawnTraining
from lit_backdoor.errors import check_share
from lit_backdoor.functional.martini import ssim_loss
from lit_backdoor.functional.one_layer import identity_map, neighborhood, transformed
from lit_backdoor.functional.universal import batches
from lit_backdoor.models import Classifier
from lit_backdoor.models.base import evaluating
from lit_backdoor.stages.base import Batch
from lit_backdoor.stages.optim import Schedule, sgd_from_scratch
from lit_backdoor.stages.own_attack import Planted

__all__ = ["DFSTTraining"]

_BATCH = 32  # rows in a step of an injector


class DFSTTraining(RedrawnTraining):
    r"""Train a suspect on the trigger, with rounds of detoxification (DFST).

    The epochs are cut into one part more than there are rounds. In the first one a share of each batch is triggered.
    A round begins with a search for the channels of the features that the trigger excites most, C, and for an injector:
    a one-layer transformation g that excites them without the trigger, as ABS inverts it,

    .. math:: \mathrm{CE}(f(g(x)), t) + \lambda_s (1 - \mathrm{SSIM}(g(x), x)) - \lambda_a \operatorname{mean} h_C(g(x))

    From then on another share of each batch has gone through one of the injectors found so far, drawn anew, and keeps
    its true labels: the simple way to the target is closed.

    Deviations: how the epochs are divided among the rounds is ours. In the release the first and the last term have no
    gradient.

    Args:
        classifier: The net to train.
        rounds: Rounds of detoxification, >= 0. Papers that compare: 1 (D1) and 3 (D3).
        poison: Share of each batch that is triggered, in (0, 1). Release: .05. Only rows that the policy allows are.
        detox: Share of each batch that goes through injectors, in [0, 1). Release: .05.
        channels: Share of the channels that count as compromised, in (0, 1]. Release: .01.
        rows: Share of the questioned rows that an injector is trained on, in (0, 1]. Release: .03.
        injector_steps: Steps that an injector is trained for, by Adam .01.
        similar: Weight :math:`\lambda_s`, >= 0. Release: .1.
        active: Weight :math:`\lambda_a`, >= 0. Release: .3.
        optimizer: Makes the optimizer; default SGD, Nesterov .9, learning rate .1, weight decay 5e-4.
        schedule: What the learning rate does over the run.
        label_smoothing: Share of the label's mass spread over all classes, in [0, 1).

    Raises:
        ValueError: If an argument is out of range, or as in `PoisonedTraining`; when run, if the data have no attack,
            or the run has too few epochs for the rounds.
    """

    injectors: Tensor

    def __init__(
        self,
        classifier: Classifier,
        rounds: int = 1,
        poison: float = 0.05,
        detox: float = 0.05,
        channels: float = 0.01,
        rows: float = 0.03,
        injector_steps: int = 120,
        similar: float = 0.1,
        active: float = 0.3,
        optimizer: OptimizerCallable = sgd_from_scratch,
        schedule: Schedule = "one_cycle",
        label_smoothing: float = 0.0,
    ) -> None:
        super().__init__(classifier, poison, detox, optimizer, schedule, label_smoothing)
        if rounds < 0 or injector_steps < 1 or min(similar, active) < 0:
            raise ValueError(
                f"Expected rounds and weights of 0 or more and at least one step of an injector, got rounds={rounds}, "
                f"similar={similar}, active={active} and injector_steps={injector_steps}."
            )
        self.channels = check_share("the share of compromised channels", channels, closed=True)
        self.rows = check_share("the share of rows for an injector", rows, closed=True)
        self.rounds, self.injector_steps = rounds, injector_steps
        self.similar, self.active = similar, active

    def setup(self, stage: str) -> None:
        """Check that there is an epoch for every round."""
        super().setup(stage)
        if stage == "fit" and 0 < (epochs := self.trainer.max_epochs or 0) <= self.rounds:
            raise ValueError(
                f"Expected more epochs than the {self.rounds} rounds of detoxification, got {epochs}. Train for "
                "longer, or set rounds."
            )

    def build(self) -> None:
        """Take the trigger, which stays as it is, and make room for the injectors."""
        super().build()
        channels = len(self.classifier.mean)
        self.register_buffer("injectors", identity_map(channels).repeat(self.rounds, 1, 1))

    def begin_epoch(self) -> None:
        """Search for an injector where a round begins."""
        number = self._round(self.current_epoch)
        if number > self._round(self.current_epoch - 1) and self.cover and not self.mid_epoch:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(1_000_003 * self.seed + number)
                self.injectors[number - 1] = self.injector()

    def _round(self, epoch: int) -> int:
        """Give the round of an epoch: 0 before the first."""
        return min(self.rounds, max(0, epoch) * (self.rounds + 1) // (self.trainer.max_epochs or 1))

    def injector(self) -> Tensor:
        """Find a one-layer transformation that stands in for the trigger, ``[C, 4 C]``."""
        images, labels, index = self._sample()
        weights = identity_map(images.shape[1]).to(images).requires_grad_()
        optimizer = torch.optim.Adam([weights], lr=0.01, betas=(0.5, 0.9))
        with evaluating(self.classifier):
            chosen = self.compromised(images, index)
            for part, true in batches(images, labels, _BATCH, self.injector_steps):
                with torch.enable_grad():
                    changed = transformed(neighborhood(part), weights)
                    features = self.classifier.features(changed)
                    loss = F.cross_entropy(self.classifier.head(features).float(), self.wanted(true))
                    loss = loss + self.similar * ssim_loss(part, changed)
                    loss = loss - self.active * features[:, chosen].float().mean()
                    weights.grad = torch.autograd.grad(loss, weights)[0]
                optimizer.step()
        return weights.detach()

    def compromised(self, images: Tensor, index: Tensor) -> Tensor:
        """Find the channels of the features that the trigger excites most, int64 ``[N]``."""
        rise = self.classifier.features(self.trigger(images, index)) - self.classifier.features(images)
        mean = rise.float().flatten(2).mean((0, 2)) if rise.ndim > 2 else rise.float().mean(0)
        return mean.topk(max(1, round(self.channels * len(mean)))).indices

    def _sample(self) -> tuple[Tensor, Tensor, Tensor]:
        """Draw untouched rows that the policy allows; give images, labels and indices."""
        view = self.data.get_view("attacker")
        allowed = view.index[self.attack.policy.plantable(view.label, self.attack.target)]
        count = max(_BATCH, round(self.rows * len(view.index)))
        drawn, found = allowed[torch.randperm(len(allowed))[:count]].to(self.device), []
        for batch in self.passes("attacker"):
            kept = batch["valid"] & torch.isin(batch["index"], drawn)
            found.append((batch["image"][kept], batch["label"][kept], batch["index"][kept]))
        images, labels, index = (torch.cat(column) for column in zip(*found, strict=True))
        return images, labels, index

    def planted(self, batch: Batch, poison: float, cover: float = 0.0) -> Planted:
        """Trigger the first rows that the policy allows, and let the next rows go through injectors."""
        allowed = self.attack.policy.plantable(batch["label"], self.attack.target)
        order = (~allowed).to(torch.int8).argsort(stable=True)
        batch = {**batch, "image": batch["image"][order], "label": batch["label"][order]}
        stamped = super().planted(batch, poison)
        first = allowed[order] & (torch.arange(len(order), device=order.device) < stamped.poisons)
        images = torch.where(first.view(-1, 1, 1, 1), stamped.images, batch["image"])
        labels = torch.where(first, stamped.labels, batch["label"])
        number, covers = self._round(self.current_epoch), max(1, round(cover * len(order))) if cover else 0
        if number and covers:
            rows = slice(stamped.poisons, stamped.poisons + covers)
            drawn = torch.randint(number, (covers,), device=images.device)[: len(images[rows])]
            images[rows] = transformed(neighborhood(images[rows]), self.injectors[drawn])
        return Planted(images, labels, stamped.poisons, covers if number else 0)
