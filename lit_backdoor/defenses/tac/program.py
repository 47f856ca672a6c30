"""The program's settings, and what detection and fine-tuning share: latents of the root set, perturbations as given."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from lit_backdoor.functional.minimal_perturbation import minimal_perturbations, required_gains
from lit_backdoor.models import Classifier
from lit_backdoor.models.latents import latents_and_logits
from lit_backdoor.stages import Stage
from lit_backdoor.stages.target_detection import judges_another

__all__ = ["Program", "perturbations_given", "root_latents"]


@dataclass(frozen=True)
class Program:
    """How the minimal perturbation of each class is computed. The defaults are the paper's program, with biases.

    Attributes:
        margin: By how much the class's logit must win, in units of logits.
        quantile: Share of the root images that must be sent over each border, in (0, 1]; 1 is the maximum over images.
        slack: Price of each unit of logits by which the gain on another class falls short; None lets none fall short.

    Raises:
        ValueError: If a number is out of range.
    """

    margin: float = 0.0
    quantile: float = 1.0
    slack: float | None = None

    def __post_init__(self) -> None:
        if not self.margin >= 0:
            raise ValueError(f"Expected program.margin to be 0 or more, got {self.margin}.")
        if not 0 < self.quantile <= 1:
            raise ValueError(f"Expected program.quantile in (0, 1], got {self.quantile}.")
        if self.slack is not None and not self.slack > 0:
            raise ValueError(f"Expected program.slack to be None or above 0, got {self.slack}.")

    def solve(self, classifier: Classifier, latents: Tensor, targets: Sequence[int] | None = None) -> Tensor:
        """Compute the perturbations of classes; on the CPU, so that every device gives the same.

        Args:
            classifier: The suspect.
            latents: Of images, see `root_latents`.
            targets: The classes; None for all. Others then need not be feasible.

        Returns:
            Float64 ``[C, d]``, or ``[T, d]``, on the CPU.

        Raises:
            ValueError: If the program is infeasible, or latents are not finite.
        """
        if not latents.isfinite().all():
            raise ValueError(
                "Expected finite latents of root images, got NaN or infinity: the suspect overflows on them."
            )
        last = classifier.final_linear
        weight, bias = last.weight.detach().cpu(), None if last.bias is None else last.bias.detach().cpu()
        required = required_gains(weight, bias, latents.cpu(), self.margin, self.quantile)
        return minimal_perturbations(weight, required, targets, self.slack)


def root_latents(stage: Stage, classifier: Classifier) -> Tensor:
    """Give the latents of the root set's images, ``[n, d]``, by one pass; labels do not matter.

    The pass is in full precision, without augmentation and in eval mode, and the same in every process.
    """
    batches = stage.passes("root", classifier, precise=True)
    return torch.cat([latents_and_logits(classifier, batch["image"])[0][batch["valid"]] for batch in batches])


def perturbations_given(stage: Stage, classifier: Classifier) -> Tensor | None:
    """Read the perturbations of the bundle that a stage took its target from; None where it holds none.

    Returns:
        Float32 ``[C, d]``.

    Raises:
        ValueError: If they were found on another suspect, have another shape or are not finite.
    """
    bundle = stage.bundle("target")
    found = bundle.tensors().get("perturbations") if bundle is not None else None
    if bundle is None or found is None:
        return None
    if judges_another(stage, bundle):
        raise ValueError(
            f"Expected perturbations of the suspect {stage.sources['suspect'].path}, got those of another one in "
            f"{bundle.path}. Detect on the suspect that is to be cleaned, or give the target as a number."
        )
    expected = tuple(classifier.final_linear.weight.shape)
    if tuple(found.shape) != expected:
        raise ValueError(
            f"Expected perturbations {list(expected)} as the suspect's final layer has it, got {list(found.shape)} in "
            f"{bundle.path}. Detect on the suspect that is to be cleaned."
        )
    if not found.isfinite().all():
        raise ValueError(f"Expected finite perturbations in {bundle.path}, got NaN or infinity. Detect anew.")
    return found
