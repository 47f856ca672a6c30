"""What an attacker's stages share: the attack of their data, whose trigger they may change."""

from __future__ import annotations

from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from lit_backdoor.errors import check_share
from lit_backdoor.recipe import recipe
from lit_backdoor.stages.inputs import Batch, StageInputs
from lit_backdoor.triggers import Attack, PairedTrigger, Trigger

__all__ = ["OwnAttack", "Planted", "check_shares"]


class Planted(NamedTuple):
    """A batch whose first rows are poisoned and whose next ones are covers.

    Attributes:
        images: ``[B, C, H, W]`` in [0, 1]; gradients flow to the trigger.
        labels: The attack's labels of poisoned rows, the true ones of all others, int64 ``[B]``.
        poisons: Number of poisoned rows.
        covers: Number of covers.
    """

    images: Tensor
    labels: Tensor
    poisons: int
    covers: int


class OwnAttack(StageInputs):
    """A stage of the attacker; the trigger that it changes is the attack's own object.

    So validation, test and the exported bundle all have it as it was changed.

    Attributes:
        changes: The kind of trigger that the stage takes.
    """

    changes: ClassVar[type[Trigger]] = Trigger  # type: ignore[type-abstract]  # any kind
    trigger: Trigger

    @property
    def attack(self) -> Attack:
        """The attack of the data.

        Raises:
            ValueError: If there is none.
        """
        if (attack := self.data.attack) is None:
            raise ValueError(f"Expected data.attack to be set for {type(self).__name__}: it gives trigger and labels.")
        return attack  # type: ignore[no-any-return]

    def take_trigger(self) -> None:
        """Make the attack's trigger a part of the stage.

        Raises:
            ValueError: If it cannot be written into a bundle, or is not of the kind that the stage takes.
        """
        recipe(self.attack)  # refused before it is trained
        self.trigger = self.attack.trigger
        if not isinstance(self.trigger, self.changes):
            raise ValueError(
                f"Expected a trigger of class {self.changes.__name__} for {type(self).__name__}, got "
                f"{type(self.trigger).__name__}. Set data.attack.init_args.trigger to one."
            )

    def wanted(self, labels: Tensor) -> Tensor:
        """Give the attack's labels for true labels, int64 ``[B]``."""
        return self.attack.relabel(labels, self.data.num_classes)

    def planted(self, batch: Batch, poison: float, cover: float = 0.0) -> Planted:
        """Poison the first rows of a shuffled batch of untouched ones: other rows in every epoch.

        What a trigger draws by index is drawn anew as well. Partners, if the trigger needs them, are other rows of the
        batch. A share above 0 is at least one row.
        """
        images, labels = batch["image"], batch["label"]
        poisons, covers = (max(1, round(share * len(images))) if share else 0 for share in (poison, cover))
        index = torch.randint(2**31 - 1, (len(images),), device=images.device)
        partners = images.roll(-(poisons + covers), 0)
        parts = []
        for stamp, rows in (
            (self.trigger.poison, slice(poisons)),
            (self.trigger.cover, slice(poisons, poisons + covers)),
        ):
            if len(images[rows]):
                pairs = (partners[rows],) if isinstance(self.trigger, PairedTrigger) else ()
                parts.append(stamp(images[rows], index[rows], *pairs))
        stamped = torch.cat([*parts, images[poisons + covers :]])
        return Planted(stamped, torch.cat((self.wanted(labels[:poisons]), labels[poisons:])), poisons, covers)


def check_shares(poison: float, cover: float) -> tuple[float, float]:
    """Give the shares of a batch that are poisoned and that are covers.

    Raises:
        ValueError: If one is out of range, or no row would be left clean.
    """
    cover = cover and check_share("the share of covers in a batch", cover)
    poison = check_share("the share of poisoned rows in a batch", poison)
    if poison + cover >= 1:
        raise ValueError(f"Expected clean rows in a batch, got shares of {poison:g} poisoned and {cover:g} cover rows.")
    return poison, cover
