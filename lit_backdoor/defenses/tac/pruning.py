"""Pruning of the latent units that the detected class's perturbation changes most."""

from __future__ import annotations

from typing import Any, ClassVar

from torch import Tensor
from torch.nn.utils.parametrize import is_parametrized

from lit_backdoor.defenses.tac.program import Program, perturbations_given, root_latents
from lit_backdoor.errors import check_share, settings
from lit_backdoor.functional.latent_shift import top_units
from lit_backdoor.models import Classifier
from lit_backdoor.models.latents import check_final_linear
from lit_backdoor.stages import targets_given
from lit_backdoor.stages.pruning import Pruning

__all__ = ["TACPruning"]


class TACPruning(Pruning):
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

    views: ClassVar[tuple[str, ...]] = ("root",)

    def __init__(
        self, suspect: str | Classifier, target: int | str, share: float = 0.05, program: Program | None = None
    ) -> None:
        super().__init__(suspect)
        self.given(target=target)
        self.share = check_share("the share of units to cut", share)
        self.program = settings("program", program, Program) or Program()
        self.cut_units: list[int] = []

    def build(self) -> None:
        """Open the suspect and the target."""
        super().build()
        check_final_linear(self.classifier)
        if is_parametrized(self.classifier.final_linear):
            raise ValueError(
                f"Expected a final linear layer whose weights can be set, got '{self.classifier.final_linear_name}' "
                "with a parametrization. Take it off: torch.nn.utils.parametrize.remove_parametrizations."
            )
        self.targets = targets_given(self, self.classifier.num_classes)
        self.known = perturbations_given(self, self.classifier)

    @property
    def idle(self) -> bool:
        """Whether nothing was flagged."""
        return not self.targets

    def scores(self) -> Tensor:
        """Give the perturbations of the targets, ``[T, d]``: what they change of a unit is its score."""
        if self.known is not None:
            return self.known[[*self.targets]]
        return self.program.solve(self.classifier, root_latents(self, self.classifier), self.targets)

    def chosen(self, scores: Tensor) -> Tensor:
        """Choose the share of units that the perturbations change most."""
        return top_units(scores, self.share)

    def cut(self, units: Tensor) -> None:
        """Take the units off the final linear layer."""
        self.classifier.final_linear.weight[:, units] = 0
        self.cut_units = units.tolist()

    def numbers(self) -> dict[str, Any]:
        """Give the treated class and the units that were cut."""
        return {"target_class": self.targets[0] if self.targets else None, "cut_units": self.cut_units}
