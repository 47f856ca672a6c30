"""MOTH's fine-tune: rounds of a search of triggers between two classes and of training on images with them."""

from __future__ import annotations

from typing import Any, Literal

import torch
from lightning.pytorch.cli import OptimizerCallable
from torch import Tensor

from lit_backdoor.errors import check_share
from lit_backdoor.functional.cost_schedule import CostRule
from lit_backdoor.functional.smallest_trigger import smallest_trigger
from lit_backdoor.functional.trigger_inversion import stamp_mask
from lit_backdoor.models import Classifier
from lit_backdoor.models.base import evaluating
from lit_backdoor.stages.base import Batch
from lit_backdoor.stages.optim import Schedule, sgd
from lit_backdoor.stages.repair import FineTune

__all__ = ["Orthogonalization"]


class Orthogonalization(FineTune):
    """Enlarge the distances between classes, the sizes of the smallest triggers from one to the other (MOTH).

    Every ``round_epochs`` epochs triggers are searched against the suspect as tuned so far; until the next search a
    share of the images that they are for is stamped, under true labels. The first rounds search one trigger each, from
    all other classes to one. Each later round takes a pair of classes, and a trigger for either direction: with
    probability .3 a random pair, else the one whose distances grow most, where hardening pays.

    A trigger that covers more than a quarter of the image is not stamped. Deviation from the release: searches are
    shorter, and start anew in each round.

    Args:
        suspect: Path of a suspect bundle, or a classifier (a copy of it is tuned).
        share: Share of the images that a trigger is for that are stamped, in (0, 1]. Release: .5, of pairs .1.
        search_steps: Steps of a search, at least 1. Release: 500, of pairs 200.
        search_lr: Learning rate of its Adam, whose betas are .5 and .9, > 0. Release: .1.
        images: The most images of a search, at least 1.
        cost: How the weight of a trigger's size moves; default the release's bounds, with less patience.
        round_epochs: Epochs from one search to the next, at least 1.
        optimizer: Makes the optimizer; default SGD .01, momentum .9, weight decay 5e-4.
        schedule: What the learning rate does over the run.
        batch_norm: ``train`` uses and updates batch statistics (release), ``eval`` keeps the suspect's running ones.

    Raises:
        ValueError: If a number is out of range or an option unknown.
    """

    source: Tensor
    target: Tensor
    masks: Tensor
    patterns: Tensor
    distance: Tensor
    gain: Tensor

    def __init__(
        self,
        suspect: str | Classifier,
        share: float = 0.5,
        search_steps: int = 30,
        search_lr: float = 0.1,
        images: int = 32,
        cost: CostRule | None = None,
        round_epochs: int = 2,
        optimizer: OptimizerCallable = sgd,
        schedule: Schedule = "cosine",
        batch_norm: Literal["train", "eval"] = "train",
    ) -> None:
        super().__init__(suspect, optimizer, schedule, batch_norm)
        for name, value in (("search_steps", search_steps), ("images", images), ("round_epochs", round_epochs)):
            if value < 1:
                raise ValueError(f"Expected {name} of at least 1, got {value}.")
        if not search_lr > 0:
            raise ValueError(f"Expected search_lr above 0, got {search_lr}.")
        self.part = check_share("share", share, closed=True)
        self.search_steps, self.search_lr, self.images = search_steps, search_lr, images
        self.cost = cost or CostRule(up=1.5, down=1.5**1.5, patience=3, threshold=0.99)
        self.round_epochs = round_epochs

    def build(self) -> None:
        """Open the suspect; triggers and distances are part of a checkpoint."""
        super().build()
        example, count = self.classifier.example(2), self.classifier.num_classes
        self.register_buffer("source", torch.tensor(-1))  # -1: all classes but the target
        self.register_buffer("target", torch.tensor(0))
        self.register_buffer("masks", torch.ones_like(example[:, :1]))  # to the target, and back to the source
        self.register_buffer("patterns", torch.zeros_like(example))
        self.register_buffer("distance", torch.zeros(count, count))  # from row to column
        self.register_buffer("gain", torch.zeros(count, count))

    def begin_epoch(self) -> None:
        """Search new triggers where a round begins."""
        super().begin_epoch()
        if not self.mid_epoch and self.current_epoch % self.round_epochs == 0:
            self.begin_round(self.current_epoch // self.round_epochs)

    def begin_round(self, number: int) -> None:
        """Choose a class, or a pair, and search its triggers; a function of the seed, the round and the suspect."""
        generator = torch.Generator().manual_seed(1_000_003 * self.seed + number)
        source, target = self.choose(number, generator)
        self.source.fill_(source)
        self.target.fill_(target)
        self.masks.fill_(1)
        for way, (start, end) in enumerate(((source, target), (target, source))[: 1 if source < 0 else 2]):
            images = self.images_of(start, end)
            if len(images):
                self.masks[way], self.patterns[way] = self.search(images, end, generator)
                self.note_distance(start, end, float(self.masks[way].sum()))

    def choose(self, number: int, generator: torch.Generator) -> tuple[int, int]:
        """Choose source, -1 for all classes but the target, and target."""
        count = len(self.gain)
        if number < count:
            return -1, number
        if float(torch.rand((), generator=generator)) < 0.3:
            source, target = torch.randperm(count, generator=generator)[:2].tolist()
            return source, target
        both = (self.gain + self.gain.T).fill_diagonal_(-torch.inf)
        return divmod(int(both.argmax()), count)

    def note_distance(self, source: int, target: int, size: float) -> None:
        """Note a trigger's size, and by what share it grew; the first sizes are compared with the whole image."""
        if source < 0:
            self.distance[:, target] = size
            self.gain[:, target] = size / self.masks[0].numel()
        else:
            self.gain[source, target] = size / self.distance[source, target].clamp(min=1e-6) - 1
            self.distance[source, target] = size

    def images_of(self, source: int, target: int) -> Tensor:
        """Give the first root images that a trigger is for."""
        found, images = 0, []
        for batch in self.passes("root"):
            kept = self.rows(batch["label"], source, target) & batch["valid"]
            images.append(batch["image"][kept][: self.images - found])
            found += len(images[-1])
        return torch.cat(images)

    @staticmethod
    def rows(labels: Tensor, source: int, target: int) -> Tensor:
        """Say which rows a trigger is for, bool ``[B]``."""
        return labels != target if source < 0 else labels == source

    def search(self, images: Tensor, target: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Search the smallest trigger that leads images to a class, against the suspect in eval mode."""
        with evaluating(self.classifier), self.trainer.precision_plugin.forward_context():
            return smallest_trigger(
                self.classifier, images, target, self.cost, self.search_steps, self.search_lr, generator
            )

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Compute the cross-entropy of the batch, a share of the rows that the triggers are for stamped."""
        images, labels = batch["image"], batch["label"]
        source, target = int(self.source), int(self.target)
        for way, (start, end) in enumerate(((source, target), (target, source))):
            if end >= 0 and self.masks[way].mean() < 0.25:
                rows = self.rows(labels, start, end).nonzero().flatten()
                rows = rows[: round(self.part * len(rows))]
                stamped = stamp_mask(images[rows], self.masks[way, None], self.patterns[way, None])[0]
                images = images.index_copy(0, rows, stamped.to(images))
        return super().losses({**batch, "image": images})

    def numbers(self) -> dict[str, Any]:
        """Give the mean distance of classes, in pixels of the last triggers between them."""
        return {"mean_distance": float(self.distance.mean())}
