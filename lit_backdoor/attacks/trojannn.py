"""TrojanNN: a patch that drives chosen neurons of a clean net; a victim then learns it as a trigger.

Liu et al., "Trojaning Attack on Neural Networks", NDSS 2018.
"""

from __future__ import annotations

from typing import ClassVar, cast

import torch
from torch import Tensor, nn

from lit_backdoor.functional.universal import batches
from lit_backdoor.models import Classifier
from lit_backdoor.stages.trigger_training import TriggerCrafting
from lit_backdoor.triggers import LearnedPatch, Trigger

__all__ = ["TrojanNNCrafting"]


class TrojanNNCrafting(TriggerCrafting):
    """Find the patch under which the most connected inputs of a surrogate's last layer reach a high value.

    A neuron's connections are the sum of its absolute weights. The patch is found on questioned rows by gradient steps
    on the squared distance to the value.

    Args:
        surrogate: Path of a bundle with a classifier, or a classifier.
        neurons: How many neurons. BackdoorBench: 2.
        value: What they are to reach. BackdoorBench: 100.
        steps: Gradient steps. BackdoorBench: 1,000.
        rate: Learning rate of Adam, > 0.
        batch_size: Rows in a step.

    Raises:
        ValueError: If an argument is out of range; when run, if the trigger is another, or the surrogate ends in no
            linear layer.
    """

    changes: ClassVar[type[Trigger]] = LearnedPatch

    def __init__(
        self,
        surrogate: str | Classifier,
        neurons: int = 2,
        value: float = 100.0,
        steps: int = 200,
        rate: float = 0.1,
        batch_size: int = 32,
    ) -> None:
        super().__init__(surrogate)
        if min(neurons, steps, batch_size) < 1 or not rate > 0:
            raise ValueError(
                f"Expected neurons, steps and batch_size of at least 1 and a rate above 0, got neurons={neurons}, "
                f"steps={steps}, batch_size={batch_size} and rate={rate}."
            )
        self.neurons, self.value = neurons, value
        self.steps, self.rate, self.batch_size = steps, rate, batch_size

    def craft(self) -> None:
        """Find the patch."""
        images, labels, _ = self.rows()
        trigger, last = cast(LearnedPatch, self.trigger), self.net.module.final_linear
        chosen = last.weight.abs().sum(0).topk(min(self.neurons, last.in_features)).indices
        inputs: list[Tensor] = []

        def keep(_module: nn.Module, given: tuple[Tensor, ...]) -> None:
            inputs.append(given[0])

        handle = last.register_forward_pre_hook(keep)
        values = trigger.values.clone().requires_grad_(True)
        optimizer = torch.optim.Adam([values], lr=self.rate)
        try:
            for part, _ in batches(images, labels, self.batch_size, self.steps):
                with torch.enable_grad():
                    trigger.values = values
                    self.net(trigger(part, torch.zeros(len(part), dtype=torch.int64, device=part.device)))
                    gap = (inputs.pop()[:, chosen].float() - self.value).square().mean()
                    optimizer.zero_grad()
                    values.grad = torch.autograd.grad(gap, values)[0]
                optimizer.step()
                values.data.clamp_(0, 1)
        finally:
            handle.remove()
            trigger.values = values.detach()
