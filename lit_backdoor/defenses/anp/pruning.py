"""ANP's training of masks under adversarial noise of weights and biases."""

from __future__ import annotations

import torch
from lightning.pytorch.cli import OptimizerCallable
from torch import Tensor
from torch.nn import functional as F

from lit_backdoor.errors import check_share
from lit_backdoor.models import Classifier
from lit_backdoor.stages.mask_pruning import MaskPruning, OracleThreshold, sgd_for_masks

__all__ = ["ANP", "ANPOracle"]


class ANP(MaskPruning):
    r"""Train masks that keep the loss low under the worst noise of norm weights and biases, then prune (Eq. 4).

    .. math:: \min_{m \in [0,1]^n} \alpha\, \mathcal L(m \odot w, b) + (1 - \alpha)
        \max_{\delta, \xi \in [-\epsilon, \epsilon]^n} \mathcal L((m + \delta) \odot w, (1 + \xi) \odot b)

    The noise starts at random and takes signed gradient steps.

    Deviations from the paper: the threshold is chosen on held-out root data instead of fixed at .2.

    Args:
        suspect: Path of a suspect bundle, or a classifier (a copy of it is pruned).
        alpha: Weight of the loss without noise, in (0, 1]. Paper: .2.
        epsilon: Largest relative noise, above 0. Paper: .4.
        noise_steps: Gradient steps of the noise. Paper: 1.
        optimizer: Makes the optimizer of the masks; default SGD .2 with momentum .9, the paper's.
        tolerance: Share of the held-out accuracy that pruning may cost, in (0, 1).
        held_out: Share of the root set that is held out, in (0, 1).

    Raises:
        ValueError: If an argument is out of range; when run, if the suspect has no batch norm.
    """

    def __init__(
        self,
        suspect: str | Classifier,
        alpha: float = 0.2,
        epsilon: float = 0.4,
        noise_steps: int = 1,
        optimizer: OptimizerCallable = sgd_for_masks,
        tolerance: float = 0.05,
        held_out: float = 0.2,
    ) -> None:
        super().__init__(suspect, optimizer, tolerance, held_out)
        if not epsilon > 0 or noise_steps < 1:
            raise ValueError(
                f"Expected epsilon above 0 and noise_steps of at least 1, got {epsilon} and {noise_steps}."
            )
        self.alpha = check_share("alpha", alpha, closed=True)
        self.epsilon = epsilon
        self.noise_steps = noise_steps

    def build(self) -> None:
        """Open the suspect and make the masks; note the biases, too."""
        super().build()
        self.bias: Tensor
        self.register_buffer("bias", self.channels.row("bias"))

    def objective(self, images: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """Compute Eq. 4."""
        noise = self.worst_noise(images, labels)
        clean = F.cross_entropy(self.masked(self.classifier, images, weight=self.gain * self.masks), labels)
        noisy = self.noisy_loss(noise, images, labels)
        return {"loss": self.alpha * clean + (1 - self.alpha) * noisy, "clean_loss": clean, "noisy_loss": noisy}

    def noisy_loss(self, noise: Tensor, images: Tensor, labels: Tensor) -> Tensor:
        """Compute the loss under noise of weights and biases, ``[2, channels]``."""
        weight, bias = self.gain * (self.masks + noise[0]), self.bias * (1 + noise[1])
        return F.cross_entropy(self.masked(self.classifier, images, weight=weight, bias=bias), labels)

    def worst_noise(self, images: Tensor, labels: Tensor) -> Tensor:
        """Find the noise that maximizes the loss, ``[2, channels]`` in [-epsilon, epsilon]."""
        noise = torch.empty(2, self.channels.count, device=self.device).uniform_(-self.epsilon, self.epsilon)
        for _ in range(self.noise_steps):
            [slope] = torch.autograd.grad(self.noisy_loss(noise.requires_grad_(), images, labels), noise)
            noise = noise.detach() + self.epsilon / self.noise_steps * slope.sign()
            noise.clamp_(-self.epsilon, self.epsilon)
        return noise


class ANPOracle(OracleThreshold, ANP):
    """ANP with the threshold that is best on triggered test images: for comparisons, never a defense.

    Arguments as in `ANP`.
    """
