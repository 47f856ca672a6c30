"""Label-consistent: planted rows are made hard on a surrogate, so that a victim relies on the trigger.

Turner et al., "Label-Consistent Backdoor Attacks", 2019.
"""

from __future__ import annotations

from typing import ClassVar, cast

import torch
from torch import Tensor
from torch.nn import functional as F

from lit_backdoor.errors import check_share
from lit_backdoor.functional.adversarial import projected_ascent
from lit_backdoor.models import Classifier
from lit_backdoor.stages.trigger_training import TriggerCrafting
from lit_backdoor.triggers import LabelConsistent, Role, Trigger

__all__ = ["LabelConsistentCrafting"]

_ROWS = 128  # at once


class LabelConsistentCrafting(TriggerCrafting):
    """Change the planted rows by PGD away from their label, and keep the changes in the `LabelConsistent` trigger.

    Deviation: the surrogate is any classifier; the paper's is trained adversarially.

    Args:
        surrogate: Path of a bundle with a classifier, or a classifier.
        budget: Largest change of a pixel, in (0, 1]. Paper: 8/255.
        steps: Steps of PGD. Paper: 100.
        step: Change of a pixel in each of them, in (0, 1]. Paper: 1.5/255.

    Raises:
        ValueError: If an argument is out of range; when run, if the trigger is another, or no row is planted.
    """

    changes: ClassVar[type[Trigger]] = LabelConsistent

    def __init__(
        self, surrogate: str | Classifier, budget: float = 8 / 255, steps: int = 100, step: float = 1.5 / 255
    ) -> None:
        super().__init__(surrogate)
        if steps < 1:
            raise ValueError(f"Expected at least one step of PGD, got {steps}.")
        self.budget = check_share("the budget of PGD", budget, closed=True)
        self.steps, self.step = steps, check_share("the step of PGD", step, closed=True)

    def craft(self) -> None:
        """Change the planted rows."""
        images, labels, index = self.rows(lambda batch: batch["role"] == Role.POISON)
        if not len(index):
            raise ValueError("Expected data.attack to plant rows, got none. Set data.attack.init_args.rate.")
        parts = zip(torch.split(images, _ROWS), torch.split(labels, _ROWS), strict=True)
        changed = [self._hard(*part) for part in parts]
        cast(LabelConsistent, self.trigger).hold_changes(index, torch.cat(changed) - images)

    def _hard(self, images: Tensor, labels: Tensor) -> Tensor:
        start = torch.empty_like(images).uniform_(-self.budget, self.budget)

        def objective(changed: Tensor) -> Tensor:
            return F.cross_entropy(self.net(changed).float(), labels, reduction="sum")

        return projected_ascent(images, objective, start, self.budget, self.steps, self.step)
