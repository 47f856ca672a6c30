"""Repair of a suspect without training epochs."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, ClassVar, Literal

import torch

from lit_backdoor.stages.repair import Mitigation

__all__ = ["OneShot"]


class OneShot(Mitigation):
    """Change a suspect once, by as many passes over the data as it needs; run by ``predict``.

    A subclass does it in `work`, by `passes`; it names in `views` the parts of the data that its result depends on.

    Args:
        suspect: Path of a suspect bundle, or a classifier (a copy of it is changed).
    """

    views: ClassVar[tuple[str, ...]] = ()
    verb: ClassVar[Literal["fit", "predict"]] = "predict"

    def __init__(self, suspect: Any) -> None:
        super().__init__(suspect)
        self._done = False

    @abstractmethod
    def work(self) -> None:
        """Change `classifier`, which is in eval mode; gradients are off, unless ``torch.enable_grad`` asks for them."""
        raise NotImplementedError

    def predict_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
        """Do the work, unless there is nothing to do."""
        self.warn_if_idle()
        with torch.inference_mode(False), torch.no_grad():  # else no work could ask for gradients
            self.label_root()
            if not self.idle and not self._done:
                self.work()
        self._done = True
