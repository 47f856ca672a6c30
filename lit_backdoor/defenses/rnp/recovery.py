"""RNP's second step: masks over the unlearned net recover clean images, and say what to prune from the suspect."""

from __future__ import annotations

from typing import ClassVar

from lightning.pytorch.cli import OptimizerCallable
from torch import Tensor
from torch.nn import functional as F

from lit_backdoor.models import Classifier, Frozen
from lit_backdoor.models.channels import Channels
from lit_backdoor.stages.inputs import Takes
from lit_backdoor.stages.mask_pruning import MaskPruning, OracleThreshold, sgd_for_masks

__all__ = ["RNPOracle", "RNPRecovery"]


class RNPRecovery(MaskPruning):
    r"""Train masks under which the unlearned net classifies root images again, and prune the suspect by them.

    .. math:: \min_{m \in [0,1]^n} \mathcal L(m \odot \hat\theta)

    The unlearned net is frozen. Deviations: the threshold is chosen on held-out root data, where the paper fixes it and
    its release scans it on test images; norms use running statistics, where the release uses those of the batch.

    Args:
        suspect: Path of a suspect bundle, or a classifier (a copy of it is pruned).
        unlearned: Path of the bundle of the unlearned suspect, or a classifier.
        optimizer: Makes the optimizer of the masks; default SGD .2 with momentum .9.
        tolerance: Share of the held-out accuracy that pruning may cost, in (0, 1).
        held_out: Share of the root set that is held out, in (0, 1).

    Raises:
        ValueError: If a share is out of range; when run, if the suspect has no batch norm.
    """

    takes: ClassVar[Takes] = {**MaskPruning.takes, "unlearned": ("suspect",)}

    def __init__(
        self,
        suspect: str | Classifier,
        unlearned: str | Classifier,
        optimizer: OptimizerCallable = sgd_for_masks,
        tolerance: float = 0.05,
        held_out: float = 0.2,
    ) -> None:
        super().__init__(suspect, optimizer, tolerance, held_out)
        self.given(unlearned=unlearned)

    def build(self) -> None:
        """Open the suspect and the unlearned net, and make the masks."""
        super().build()
        self.unlearned: Frozen[Classifier] = Frozen(self.open_classifier("unlearned"))
        self.unlearned_gain: Tensor
        self.register_buffer("unlearned_gain", Channels(self.unlearned.module).row("weight"), persistent=False)

    def objective(self, images: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """Compute the cross-entropy of the masked unlearned net."""
        logits = self.masked(self.unlearned.module, images, weight=self.unlearned_gain * self.masks)
        return {"loss": F.cross_entropy(logits, labels)}


class RNPOracle(OracleThreshold, RNPRecovery):
    """RNP with the threshold that is best on triggered test images: for comparisons, never a defense.

    Arguments as in `RNPRecovery`.
    """
