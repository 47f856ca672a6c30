"""SEAM's two phases."""

from __future__ import annotations

import warnings
from typing import Any

import torch
from lightning.pytorch.cli import OptimizerCallable
from torch import Tensor

from lit_backdoor.functional.wrong_labels import wrong_labels
from lit_backdoor.models import Classifier
from lit_backdoor.stages import Batch, FineTune
from lit_backdoor.stages.optim import adam_for_generators

__all__ = ["SelectiveAmnesia"]


class SelectiveAmnesia(FineTune):
    r"""Let a suspect forget by random wrong labels, then recover by true ones (SEAM).

    It forgets until its accuracy on root images, taken at the start of each epoch in eval mode, is below
    :math:`\min(2 / C, .6)`, as in the release, or the limit is reached; it recovers in all epochs that are left. The
    optimizer's state is reset in between. Deviation from the paper, which forgets on a small part of the root set: here
    it is all of it, since root sets are small.

    Args:
        suspect: Path of a suspect bundle, or a classifier (a copy of it is tuned).
        forget_epochs: The most epochs of forgetting, >= 0. Release: 10.
        optimizer: Makes the optimizer; default Adam 1e-3, the release's.
        **options: Further arguments of `FineTune`.

    Raises:
        ValueError: If ``forget_epochs`` is negative, or an option unknown; when run, if no epoch is left to recover in.
    """

    recovering_from: Tensor
    forgotten_to: Tensor

    def __init__(
        self,
        suspect: str | Classifier,
        forget_epochs: int = 10,
        optimizer: OptimizerCallable = adam_for_generators,
        **options: Any,
    ) -> None:
        super().__init__(suspect, optimizer, **options)
        if forget_epochs < 0:
            raise ValueError(f"Expected forget_epochs of at least 0, got {forget_epochs}.")
        self.forget_epochs = forget_epochs
        self.forgetting = True

    def build(self) -> None:
        """Open the suspect; which phase it is in is part of a checkpoint."""
        super().build()
        self.register_buffer("recovering_from", torch.tensor(-1))  # an epoch; -1 while it forgets
        self.register_buffer("forgotten_to", torch.tensor(1.0))  # the accuracy by then

    def on_fit_start(self) -> None:
        """Check that the run is longer than the forgetting."""
        super().on_fit_start()
        epochs = self.trainer.max_epochs
        if epochs is not None and 0 < epochs <= self.forget_epochs:
            raise ValueError(
                f"Expected more than the {self.forget_epochs} epochs in which {type(self).__name__} may forget, got "
                f"max_epochs={epochs}: none is left to recover in. Raise max_epochs or lower forget_epochs."
            )

    def begin_epoch(self) -> None:
        """Go on to recover where enough is forgotten."""
        super().begin_epoch()
        if self.recovering_from < 0 and not self.mid_epoch:
            self._end_forgetting()
        self.forgetting = bool(self.recovering_from < 0)

    def _end_forgetting(self) -> None:
        accuracy, enough = self._accuracy(), min(2 / self.classifier.num_classes, 0.6)
        if accuracy < enough or self.current_epoch >= self.forget_epochs:
            if accuracy >= enough:
                warnings.warn(
                    f"After {self.current_epoch} epochs of forgetting the suspect's accuracy on root images is "
                    f"{accuracy:.2f}, not below {enough:.2f}. Raise forget_epochs or the learning rate.",
                    stacklevel=2,
                )
            self.recovering_from.fill_(self.current_epoch)
            self.forgotten_to.fill_(accuracy)
            self.optimizers().optimizer.state.clear()  # type: ignore[union-attr]

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Compute the cross-entropy of wrong labels at first, then of true ones."""
        if self.forgetting:
            batch = {**batch, "label": wrong_labels(batch["label"], self.classifier.num_classes)}
        return super().losses(batch)

    def numbers(self) -> dict[str, Any]:
        """Say how long it forgot, and down to which accuracy."""
        return {"forget_epochs": int(self.recovering_from), "forgotten_to": float(self.forgotten_to)}

    def _accuracy(self) -> float:
        right, seen = 0, 0
        for batch in self.passes("root", self.classifier):
            kept = batch["valid"]
            right += int((self.classifier(batch["image"]).argmax(1) == batch["label"])[kept].sum())
            seen += int(kept.sum())
        return right / max(1, seen)
