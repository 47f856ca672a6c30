"""ATClean without its step 2: a generator that needs no suspicious samples (Sec. 5)."""

from __future__ import annotations

import copy
from typing import Literal

import torch
from lightning.pytorch.cli import OptimizerCallable
from torch import Tensor
from torch.nn import functional as F

from lit_backdoor.errors import one_of
from lit_backdoor.functional.collision import relative_change
from lit_backdoor.models import Classifier, Frozen, PatternedUNet, UNet
from lit_backdoor.models.base import batch_norms
from lit_backdoor.stages.base import Batch
from lit_backdoor.stages.generator_training import GeneratorTraining
from lit_backdoor.stages.optim import Schedule, adam_for_generators

__all__ = ["DetectorFreeGenerator"]


class DetectorFreeGenerator(GeneratorTraining):
    """Train a generator without suspicious samples: move features of root images as far as small changes of pixels can.

    ATClean, Sec. 5, gives the idea, not the formula. Minimized is here -log of the relative feature distance
    sum_k decay^(k-1) |phi_k(B(x)) - phi_k(x)|^2 / |phi_k(x)|^2, plus a hinge that holds MSE(x, B(x)) below ``bound``.

    Args:
        suspect: Path of a suspect bundle, or a classifier; frozen in eval mode.
        generator: The net to train; default `PatternedUNet`. It must not start at the identity: there the gradient is
            zero.
        bound: Largest mean squared change of a pixel, pixels in [0, 1].
        layers: How many of the last layers are compared.
        kind_of_layer: ``conv`` layers, or ``block`` s.
        decay: Weight of a layer over that of the next later one.
        statistics: Whose norm statistics features are taken with: those of the ``root`` set, or the ``suspect`` 's own.
            Poisoned rows had their share in the latter, so that a trigger's features look ordinary with them.
        optimizer: Makes the optimizer; default Adam 1e-3.
        schedule: What the learning rate does over the run.

    Raises:
        ValueError: If an option is unknown; when run, if images are not of the suspect's size, as the default
            generator's are.
    """

    def __init__(
        self,
        suspect: str | Classifier,
        generator: UNet | None = None,
        bound: float = 0.01,
        layers: int = 4,
        kind_of_layer: Literal["conv", "block"] = "conv",
        decay: float = 0.1,
        statistics: Literal["root", "suspect"] = "root",
        optimizer: OptimizerCallable = adam_for_generators,
        schedule: Schedule = "constant",
    ) -> None:
        super().__init__(suspect, generator, optimizer, schedule)
        self.patterned = generator is None
        self.bound = bound
        self.layers = layers
        self.kind_of_layer = kind_of_layer
        self.decay = decay
        self.statistics = one_of("statistics", statistics, ("root", "suspect"))

    def build(self) -> None:
        """Open the suspect, find its last layers and make the generator."""
        super().build()
        self.names = self.net.module.last_layers(self.layers, self.kind_of_layer)
        if self.patterned:
            self.refuse_other_size(self.net.module)
            self.generator = PatternedUNet(self.net.module.input_size)

    def on_fit_start(self) -> None:
        """Take the norms' statistics from the root set."""
        super().on_fit_start()
        self.judge = self.net if self.statistics == "suspect" else Frozen(self._with_statistics_of_root())

    @torch.no_grad()
    def _with_statistics_of_root(self) -> Classifier:
        net = copy.deepcopy(self.net.module)
        images = [batch["image"][batch["valid"]] for batch in self.passes("root")]
        for norm in batch_norms(net):
            norm.reset_running_stats()
            norm.momentum = None  # the mean over all batches
            norm.train()
        for part in images:
            if 2 * len(part) >= len(images[0]):  # a short last one would weigh as much as the others
                net(part)
        return net

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Compute the loss on one batch of root images."""
        images = batch["image"]
        generated = self.generator(images)
        mse = F.mse_loss(generated.float(), images)
        moved = self.judge.module.taps(generated, self.names)
        with torch.no_grad():
            original = self.judge.module.taps(images, self.names)
        new, old = ([taps[name] for name in self.names] for taps in (moved, original))
        divergence = relative_change(new, old, self.decay)
        hinge = 10 * F.relu(mse / self.bound - 1)
        return {"loss": hinge - torch.log(divergence + 1e-6), "mse": mse, "divergence": divergence}
