"""ST-PGBD: PGBD with vectors to where a synthesized trigger moves each class (Sec. 6)."""

from __future__ import annotations

import warnings
from functools import partial
from typing import Any, ClassVar

import torch
from torch import Tensor

from lit_backdoor.defenses.pgbd.leads import constant_leads
from lit_backdoor.defenses.pgbd.sanitization import PrototypeFineTune
from lit_backdoor.models import Classifier, Frozen, UNet
from lit_backdoor.stages.activations import Stamp
from lit_backdoor.stages.inputs import Takes
from lit_backdoor.stages.target_detection import read_report, targets_given
from lit_backdoor.triggers import OneOf, Trigger, stamped_by

__all__ = ["STPGBD"]


class STPGBD(PrototypeFineTune):
    """PGBD with a synthesized trigger: keep activations off the way that the trigger moves them.

    The vectors are :math:`V_c = P'_c - P_c`, with the prototypes P' of triggered root images, both of the net as it is:
    with ``geometry.smoothed: prototypes`` the P that the loss starts from is smoothed, the vectors are not. The trigger
    moves all classes, but images of the target class are left out where it is known. Further classes that a detector
    flagged, for which its bundle has no trigger, get the vectors of `PGBD`.

    Args:
        suspect: Path of a suspect bundle, or a classifier (a copy of it is tuned).
        trigger: Path of a bundle of an inverted trigger, of target classes with one, or of a generator; or a `Trigger`
            or a generator as it is. The attack's own is an oracle, for the paper's ablation alone.
        target: The target class, by hand or as the path of a bundle; None takes what the trigger's bundle names. A
            bundle of target classes that names none leaves the suspect unchanged.
        **options: Further arguments of `PrototypeFineTune`.

    Raises:
        ValueError: If an option or a class is unknown, or the bundle holds no trigger.
    """

    takes: ClassVar[Takes] = {**PrototypeFineTune.takes, "trigger": ("trigger", "targets", "generator")}

    def __init__(
        self,
        suspect: str | Classifier,
        trigger: str | Trigger | UNet,
        target: int | str | None = None,
        **options: Any,
    ) -> None:
        super().__init__(suspect, **options)
        self.given(trigger=trigger, target=target)

    def build(self) -> None:
        """Open the suspect, and the trigger unless there is nothing to do."""
        super().build()
        if len(self.leads):
            self.maker = Frozen(self.open("trigger"))
            if len(own := self.needed):
                warnings.warn(
                    f"The trigger was inverted for other classes than {own[:, 0].tolist()}: for these, vectors go to "
                    "their own prototypes, as in PGBD.",
                    stacklevel=2,
                )

    def find_leads(self) -> Tensor:
        """Say which class each trigger leads to; -1 where that is not known."""
        num_classes, bundle = self.classifier.num_classes, self.bundle("trigger")
        if self.arguments["target"] is not None:
            found = targets_given(self, num_classes)
        elif bundle is not None and bundle.kind != "generator":
            found = targets_given(self, num_classes, "trigger")
        else:
            found = (-1,)
        return constant_leads(found, num_classes)

    @property
    def needed(self) -> Tensor:
        """Classes whose own prototypes are needed: those that have no trigger."""
        return self.leads[[row for row in range(len(self.leads)) if row not in self.stamps]]

    @property
    def stamps(self) -> dict[int, Stamp]:
        """What puts a trigger on images, by the row of `leads` it belongs to; the first where no bundle says so."""
        net, bundle = self.maker.module, self.sources.get("trigger")
        triggers = list(net.triggers) if isinstance(net, OneOf) else [net]
        of = read_report(bundle).flagged if bundle is not None and bundle.kind == "targets" else ()
        known = dict(zip(of, triggers, strict=True)) if len(of) == len(triggers) else {}
        rows = {row: known[lead] for row, lead in enumerate(self.leads[:, 0].tolist()) if lead in known}
        return {row: partial(stamped_by, trigger) for row, trigger in (rows if known else {0: net}).items()}

    def make_vectors(self, prototypes: Tensor, current: Tensor) -> Tensor:
        """Make the vectors to the prototypes of triggered images."""
        vectors = super().make_vectors(prototypes, current)
        classes = torch.arange(len(prototypes), device=prototypes.device)
        for row, stamp in self.stamps.items():
            moved = self.root_prototypes(stamp) - current  # of one net: no way that it went since is the trigger's
            vectors[row] = moved.masked_fill((self.leads[row] == classes)[:, None], 0)
        return vectors

    def numbers(self) -> dict[str, Any]:
        """Name the target where it is known."""
        if (self.leads == -1).any():
            return {}
        targets = self.leads[:, 0].tolist()
        return {"target_class": targets[0] if targets else None, "target_classes": targets}
