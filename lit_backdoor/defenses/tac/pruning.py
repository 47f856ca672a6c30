"""Pruning of the latent units that the detected class's perturbation changes most."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from torch import Tensor
from torch.nn.utils.parametrize import is_parametrized

from lit_backdoor.defenses.tac.program import Program, perturbations_given, root_latents
from lit_backdoor.errors import check_share, settings
from lit_backdoor.functional.latent_shift import top_units
from lit_backdoor.models import Classifier
from lit_backdoor.models.latents import check_final_linear
from lit_backdoor.stages import Batch, Outcome, Stage, targets_given

__all__ = ["TACPruning"]


class TACPruning(Stage):
    """Cut the latent units that the perturbation s_p changes most off the final linear layer; trains nothing.

    What a perturbation that points at backdoor units is good for without training; not in the paper. With several
    classes the units of each are cut; with none the suspect goes on unchanged and ``target_class`` is null.

    Args:
        suspect: Path of a suspect bundle, or a classifier (a copy of it is pruned).
        target: The class p; or the path of a bundle of target classes. Where that holds no perturbations, or the class
            is given by hand, they are computed from the root set.
        share: Share of the latent units to cut, in (0, 1).
        program: How perturbations are computed here; default `Program`.

    Raises:
        ValueError: If the share or the target is out of range, the suspect has no final linear layer or one with a
            parametrization, or the target's bundle is about another suspect.
    """

    verb: ClassVar[Literal["fit", "predict"]] = "predict"

    def __init__(
        self, suspect: str | Classifier, target: int | str, share: float = 0.05, program: Program | None = None
    ) -> None:
        super().__init__()
        self.given(suspect=suspect)
        self.target = target
        self.share = check_share("the share of units to cut", share)
        self.program = settings("program", program, Program) or Program()
        self.cut = torch.zeros(0, dtype=torch.long)

    def build(self) -> None:
        """Open the suspect and the target."""
        self.classifier = self.open_classifier()
        check_final_linear(self.classifier)
        if is_parametrized(self.classifier.final_linear):
            raise ValueError(
                f"Expected a final linear layer whose weights can be set, got '{self.classifier.final_linear_name}' "
                "with a parametrization. Take it off: torch.nn.utils.parametrize.remove_parametrizations."
            )
        self.targets = targets_given(self, self.target, self.classifier.num_classes)
        self.known = perturbations_given(self, self.classifier)

    def logits(self, images: Tensor) -> Tensor:
        """Classify by the suspect as pruned so far."""
        return self.classifier(images)  # type: ignore[no-any-return]

    @torch.no_grad()
    def on_predict_start(self) -> None:
        """Choose the units and cut them."""
        super().on_predict_start()
        if self.targets:
            if self.known is not None:
                solved = self.known[[*self.targets]]
            else:
                solved = self.program.solve(self.classifier, root_latents(self, self.classifier), self.targets)
            self.cut = top_units(solved, self.share)
            self.classifier.final_linear.weight[:, self.cut] = 0

    def predict_step(self, batch: Batch, batch_idx: int, dataloader_idx: int = 0) -> None:
        """Do nothing: the units were cut at the start."""

    def outcome(self) -> Outcome:
        """Hand on the pruned classifier, with the treated class and the units that were cut."""
        target = self.targets[0] if self.targets else None
        return Outcome(self.classifier, numbers={"target_class": target, "cut_units": self.cut.tolist()})
