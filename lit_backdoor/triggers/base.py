"""What an attack that only touches data is made of: a trigger, a label policy and a plan."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from enum import IntEnum
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn

from lit_backdoor.errors import check_share, one_of
from lit_backdoor.recipe import Recorded
from lit_backdoor.triggers.inputs import check_images

__all__ = [
    "AllToAll",
    "AllToOne",
    "Attack",
    "CleanLabel",
    "LabelPolicy",
    "OneToOne",
    "Role",
    "SomeToOne",
    "Trigger",
]

_STREAM = 0x706C616E  # "plan" in ASCII, added to the seed of a plan


class Role(IntEnum):
    """What the attacker did to a training row."""

    CLEAN = 0
    POISON = 1
    COVER = 2


class Trigger(Recorded, nn.Module, ABC):
    """Stamps images. The same index always gives the same trigger.

    Shapes: images are float ``[B, C, H, W]`` in [0, 1]; ``index`` is int64 ``[B]``, the rows' positions in
    their source. The result has the images' shape, dtype and device and stays in [0, 1]; the images themselves are left
    as they are.

    Attributes:
        alters_benign: Whether `benign` does anything; loaders skip the call where it does not.
        stamps: Whether the trigger is put on images. If not, rows carry it, and `carriers` says which.
    """

    alters_benign: bool = False
    stamps: bool = True
    _looked: bool = False

    @abstractmethod
    def forward(self, images: Tensor, index: Tensor) -> Tensor:
        """Stamp images as at test time."""

    def __call__(self, images: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """Check the images, then stamp them as at test time.

        Type and number of axes are checked in every call. The range is checked in every call on the CPU, but only in
        the first one on an accelerator, because reading values there waits for the device.

        Raises:
            ValueError: If the images are not a batch of floats, or the values are outside [0, 1].
        """
        if not torch.compiler.is_compiling():
            check_images(images, values=images.device.type == "cpu" or not self._looked)
            self._looked = True
        return cast(Tensor, super().__call__(images, *args, **kwargs))

    def poison(self, images: Tensor, index: Tensor) -> Tensor:
        """Stamp images as they are planted in the training set."""
        return self(images, index)

    def cover(self, images: Tensor, index: Tensor) -> Tensor:
        """Stamp cover samples, which keep their true label."""
        return self(images, index)

    def benign(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Change the attacker's clean training rows; drawn anew for every batch from ``generator`` (on the CPU)."""
        return images

    def make_room(self, state: Mapping[str, Tensor]) -> None:
        """Make room for tensors of a state dict that a new trigger does not have yet; triggers inside do so, too."""
        for name, module in self.named_children():
            if isinstance(module, Trigger):
                inner = {key.removeprefix(f"{name}."): v for key, v in state.items() if key.startswith(f"{name}.")}
                module.make_room(inner)

    def carriers(self, columns: Mapping[str, Tensor]) -> Tensor | None:
        """Say which rows carry the trigger as they are, bool ``[N]``; None for a trigger that is stamped.

        Args:
            columns: Further columns of the source, int64 or bool ``[N]``.
        """
        return None


class LabelPolicy(Recorded, ABC):
    """Which label a triggered image gets, which rows count in ASR and which may be poisoned."""

    @abstractmethod
    def relabel(self, labels: Tensor, target: int, num_classes: int) -> Tensor:
        """Give the attack's label for each true label, int64 ``[N]``."""

    def eligible(self, labels: Tensor, target: int) -> Tensor:
        """Say which test rows count in ASR and RA, bool ``[N]``."""
        return labels != target

    def plantable(self, labels: Tensor, target: int) -> Tensor:
        """Say which training rows may be poisoned, bool ``[N]``."""
        return torch.ones_like(labels, dtype=torch.bool)


class AllToOne(LabelPolicy):
    """Every triggered image gets the target label.

    Args:
        include_target: Whether rows of the target class may be poisoned too (BackdoorBench: yes).
    """

    def __init__(self, include_target: bool = True) -> None:
        self.include_target = include_target

    def relabel(self, labels: Tensor, target: int, num_classes: int) -> Tensor:
        """Give the target label."""
        return torch.full_like(labels, target)

    def plantable(self, labels: Tensor, target: int) -> Tensor:
        """Allow all rows, or all but the target class."""
        return torch.ones_like(labels, dtype=torch.bool) if self.include_target else labels != target


class AllToAll(LabelPolicy):
    """A triggered image of class y gets the label (y + 1) mod C; the target is not used."""

    def relabel(self, labels: Tensor, target: int, num_classes: int) -> Tensor:
        """Give the next label."""
        return (labels + 1) % num_classes

    def eligible(self, labels: Tensor, target: int) -> Tensor:
        """Count every row."""
        return torch.ones_like(labels, dtype=torch.bool)


class SomeToOne(LabelPolicy):
    """Triggered images of some source classes get the target label; others keep theirs (label-specific attack).

    Args:
        sources: The classes whose images are poisoned and counted.
    """

    def __init__(self, sources: list[int]) -> None:
        self.sources = tuple(sources)

    def relabel(self, labels: Tensor, target: int, num_classes: int) -> Tensor:
        """Give the target label to the source classes."""
        return torch.where(self.eligible(labels, target), target, labels)

    def eligible(self, labels: Tensor, target: int) -> Tensor:
        """Count the source classes."""
        return torch.isin(labels, torch.tensor(self.sources, dtype=labels.dtype, device=labels.device))

    def plantable(self, labels: Tensor, target: int) -> Tensor:
        """Allow the source classes."""
        return self.eligible(labels, target)


class OneToOne(SomeToOne):
    """Triggered images of one source class get the target label; others keep theirs.

    Args:
        source: The class whose images are poisoned and counted.
    """

    def __init__(self, source: int) -> None:
        super().__init__([source])


class CleanLabel(AllToOne):
    """Only images of the target class are poisoned, so no training label changes."""

    def __init__(self) -> None:
        super().__init__()

    def plantable(self, labels: Tensor, target: int) -> Tensor:
        """Allow the target class."""
        return labels == target


class Attack(Recorded):
    """A trigger, a label policy and the plan: how many rows are poisoned, and which.

    Args:
        trigger: What is stamped on the images, or which rows carry it (`SemanticTrigger`).
        policy: Which label they get; default `AllToOne`.
        target: The target label.
        rate: Share of rows to poison, in (0, 1), or up to 1 where ``rate_of`` is not ``"set"``; None plants none, for
            a trigger that is trained on all of them.
        rate_of: Whether ``rate`` and ``cover_rate`` are shares of the whole set, of the target class, or, for a trigger
            that rows carry, of those carriers that the policy allows to be poisoned.
        cover_rate: Share of cover samples (triggered, true label), in [0, 1). Rows that carry the trigger and are not
            poisoned keep their label anyway.
        seed: Seed of the plan; None takes the one that `roles` is given.

    Raises:
        ValueError: If a rate is out of range or does not go with the trigger, ``rate_of`` is unknown, or the trigger is
            none.
    """

    def __init__(
        self,
        trigger: Trigger,
        policy: LabelPolicy | None = None,
        target: int = 0,
        rate: float | None = 0.1,
        rate_of: Literal["set", "target", "carriers"] = "set",
        cover_rate: float = 0.0,
        seed: int | None = None,
    ) -> None:
        if not isinstance(trigger, Trigger):
            raise ValueError(f"Expected a Trigger, such as lit_backdoor.triggers.Patch(size=3), got {trigger!r:.80}.")
        self.trigger = trigger
        self.policy = policy or AllToOne()
        self.target = target
        self.rate = rate if rate is None else check_share("the poisoning rate", rate, closed=rate_of != "set")
        self.rate_of = one_of("rate_of of an attack", rate_of, ("set", "target", "carriers"))
        self.cover_rate = cover_rate and check_share("the cover rate", cover_rate)
        self.seed = seed
        if trigger.stamps and rate_of == "carriers":
            raise ValueError(
                f"Expected a trigger that rows carry for a rate of the carriers, got {type(trigger).__name__}, which "
                "is stamped. Give the rate as a share of the set (rate_of: set)."
            )
        if self.cover_rate and not trigger.stamps:
            raise ValueError(
                f"Expected no cover rate with {type(trigger).__name__}, got {cover_rate:g}: the rows that carry the "
                "trigger and are not poisoned are covers already. Lower the rate instead."
            )

    @property
    def single_target(self) -> int | None:
        """The one class that the attack leads to; None where it leads to several, as from all to all."""
        return self.target if isinstance(self.policy, AllToOne | SomeToOne) else None

    def check(self, num_classes: int) -> None:
        """Check the labels that the attack names against the data.

        Raises:
            ValueError: If the target (or source) class does not exist, or both are the same.
        """
        sources = self.policy.sources if isinstance(self.policy, SomeToOne) else ()
        for name, label in (("target", self.target), *(("source", source) for source in sources)):
            if not 0 <= label < num_classes:
                raise ValueError(
                    f"Expected the attack's {name} to be a class from 0 to {num_classes - 1}, got {label}."
                )
        if self.target in sources:
            raise ValueError(f"Expected the attack's source and target to differ, got class {self.target} for both.")

    def roles(self, labels: Tensor, columns: Mapping[str, Tensor] | None = None, *, seed: int = 0) -> Tensor:
        """Plan the attack: give each training row its `Role`. A pure function of its arguments.

        Args:
            labels: True labels of the training rows, int64 ``[N]``.
            columns: Further columns of the source, for attacks that name rows by them.
            seed: Used where the attack has no seed of its own.

        Returns:
            Roles, int8 ``[N]``.

        Raises:
            ValueError: If the plan asks for more rows than may be poisoned (says what is possible), or the columns do
                not fit.
        """
        labels = labels.cpu()
        if self.rate is None:
            return torch.zeros(len(labels), dtype=torch.int8)
        carriers = self.carriers(columns, len(labels))
        allowed = (self.policy.plantable(labels, self.target) & carriers).nonzero().flatten()
        base, of = len(labels), "the set"
        if self.rate_of == "target":
            base, of = int((labels == self.target).sum()), "the target class"
        elif self.rate_of == "carriers":
            base, of = len(allowed), "its carriers"
        poisons, covers = round(self.rate * base), round(self.cover_rate * base)
        if not 1 <= poisons <= len(allowed):
            raise ValueError(self._impossible(poisons, len(allowed), base, of))
        if covers > len(labels) - poisons:
            raise ValueError(
                f"Expected at most {len(labels) - poisons} cover samples beside {poisons} poisoned rows, got {covers} "
                f"(cover rate {self.cover_rate:g} of {of}). Lower cover_rate."
            )
        # Not the seed itself: a split drawn with the same seed would then be correlated with the plan.
        generator = torch.Generator().manual_seed((self.seed if self.seed is not None else seed) + _STREAM)
        roles = torch.zeros(len(labels), dtype=torch.int8)
        roles[allowed[torch.randperm(len(allowed), generator=generator)[:poisons]]] = Role.POISON
        rest = (roles == Role.CLEAN).nonzero().flatten()
        roles[rest[torch.randperm(len(rest), generator=generator)[:covers]]] = Role.COVER
        return roles

    def _impossible(self, poisons: int, allowed: int, base: int, of: str) -> str:
        got = f"got a rate of {self.rate:g} of {of} ({base} rows), which makes {poisons}"
        who = f"{type(self.policy).__name__} with target {self.target}"
        who += "" if self.trigger.stamps else f" and {type(self.trigger).__name__}"
        if base == 0 or allowed == 0:
            return f"Expected rows that {who} may poison, got none among the rows of the set and {base} in {of}."
        if poisons < 1:
            return f"Expected a rate that poisons at least one row, {got}. The smallest possible rate is {1 / base:g}."
        # Rounded down, so that the rate as it is written is indeed possible.
        largest = math.floor(allowed / base * 1e4) / 1e4 or allowed / base
        other = ", or give the rate as a share of the target class (rate_of: target)" if of == "the set" else ""
        return (
            f"Expected to poison at most the {allowed} rows that {who} allows, {got}. "
            f"The largest possible rate is {largest:g}{other if isinstance(self.policy, CleanLabel) else ''}."
        )

    def relabel(self, labels: Tensor, num_classes: int) -> Tensor:
        """Give the attack's label for each true label, int64 ``[N]``."""
        return self.policy.relabel(labels, self.target, num_classes)

    def eligible(self, labels: Tensor, columns: Mapping[str, Tensor] | None = None) -> Tensor:
        """Say which test rows count in ASR and RA, bool ``[N]``: of a trigger that rows carry, carriers alone."""
        return self.policy.eligible(labels, self.target) & self.carriers(columns, len(labels)).to(labels.device)

    def carriers(self, columns: Mapping[str, Tensor] | None, rows: int) -> Tensor:
        """Say which rows have the trigger when the attack is on them, bool ``[rows]``: all where it is stamped.

        Raises:
            ValueError: If the trigger needs a column that is missing or of another length.
        """
        found = self.trigger.carriers(columns or {})
        if found is None:
            return torch.ones(rows, dtype=torch.bool)
        if found.shape != (rows,):
            raise ValueError(
                f"Expected a column with one value for each of {rows} rows for {type(self.trigger).__name__}, got "
                f"shape {list(found.shape)}."
            )
        return found
