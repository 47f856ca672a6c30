"""ATClean, step 3: train a generator of images that collide with suspicious samples in feature space."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import torch
from lightning.pytorch.cli import OptimizerCallable
from torch import Tensor
from torch.nn import functional as F

from lit_backdoor.errors import one_of
from lit_backdoor.functional.collision import DISTANCES, locate_loss
from lit_backdoor.models import Classifier, Frozen, UNet
from lit_backdoor.stages.base import Batch, Stage
from lit_backdoor.stages.evaluation import Evaluator, GeneratorEvaluator
from lit_backdoor.stages.generator_training import GeneratorTraining
from lit_backdoor.stages.optim import Schedule, adam_for_generators

__all__ = ["CollisionGenerator", "UntrainedGenerator"]


class CollisionGenerator(GeneratorTraining):
    """Train a generator whose images collide with suspicious samples in the suspect's last layers (ATClean, Alg. 1).

    Minimized is MSE(x, B(x)) + alpha * locate(B(x), suspicious) over root images x (Eq. 1-3). The suspect's last layers
    see generated root images and suspicious samples; the distance of their features is weighted by decay^(k-1) for the
    k-th last layer. Features of suspicious samples are computed once. Deviations from the paper: each layer's distance
    is normalized by itself (see `functional.collision`), pixels are in [0, 1].

    Args:
        suspect: Path of a suspect bundle, or a classifier; frozen in eval mode.
        generator: The net to train; default `UNet` with spatial attention.
        alpha: Weight of the locate term, dimensionless, >= 0. Paper: .1 for CIFAR-10, 10 for Tiny ImageNet.
        distance: ``mmd``, ``gram`` or ``mean``.
        layers: How many of the last layers are compared.
        kind_of_layer: ``conv`` layers, or ``block`` s, which transformers need.
        decay: Weight of a layer over that of the next later one. Paper: .1.
        cache_rows: Largest number of suspicious rows whose features are kept, the first ones of the selection.
        optimizer: Makes the optimizer; default Adam 1e-3.
        schedule: What the learning rate does over the run.

    Raises:
        ValueError: If the distance or the schedule is unknown.
    """

    def __init__(
        self,
        suspect: str | Classifier,
        generator: UNet | None = None,
        alpha: float = 0.1,
        distance: Literal["mmd", "gram", "mean"] = "mmd",
        layers: int = 4,
        kind_of_layer: Literal["conv", "block"] = "conv",
        decay: float = 0.1,
        cache_rows: int = 1024,
        optimizer: OptimizerCallable = adam_for_generators,
        schedule: Schedule = "constant",
    ) -> None:
        super().__init__(suspect, generator, optimizer, schedule)
        self.alpha = alpha
        self.distance = DISTANCES[one_of("distance", distance, DISTANCES)]
        self.layers = layers
        self.kind_of_layer = kind_of_layer
        self.decay = decay
        self.cache_rows = cache_rows

    def build(self) -> None:
        """Open the suspect and find its last layers."""
        super().build()
        self.names = self.net.module.last_layers(self.layers, self.kind_of_layer)

    def on_fit_start(self) -> None:
        """Compute the features of the suspicious samples."""
        super().on_fit_start()
        parts: dict[str, list[Tensor]] = {name: [] for name in self.names}
        seen = 0
        for batch in self.passes("suspicious"):
            if seen >= self.cache_rows:
                break
            taps = self.taps(batch["image"][batch["valid"]][: self.cache_rows - seen])
            seen += len(taps[0])
            for name, tap in zip(self.names, taps, strict=True):
                parts[name].append(self.distance.prepare(tap))
        self.suspicious = [torch.cat(parts[name]) for name in self.names]

    def taps(self, images: Tensor) -> list[Tensor]:
        """Give the suspect's outputs at the last layers, last first."""
        taps = self.net.module.taps(images, self.names)
        return [taps[name] for name in self.names]

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Compute Eq. 3 on one batch of root images, against as many suspicious rows drawn with replacement."""
        generated = self.generator(batch["image"])
        rows = torch.randint(len(self.suspicious[0]), (len(generated),)).to(generated.device)
        mse = F.mse_loss(generated.float(), batch["image"])
        locate = locate_loss(self.taps(generated), [part[rows] for part in self.suspicious], self.distance, self.decay)
        return {"loss": mse + self.alpha * locate, "mse": mse, "locate": locate}


class UntrainedGenerator(Stage):
    """Export a generator with random weights in every layer: the ablation without step 3.

    Args:
        suspect: Path of a suspect bundle, or a classifier; DoF is measured against it.
        generator: The net; default `UNet` with ``start="random"``.
    """

    views: ClassVar[tuple[str, ...]] = ()
    verb: ClassVar[Literal["fit", "predict"]] = "predict"
    kind: ClassVar[str | None] = "generator"

    def __init__(self, suspect: str | Classifier, generator: UNet | None = None) -> None:
        super().__init__()
        self.given(suspect=suspect)
        self.generator = generator or UNet(start="random")

    def build(self) -> None:
        """Open the suspect, so that the bundle names it."""
        self.net = Frozen(self.open_classifier())

    def result(self) -> UNet:
        """Give the generator as it began."""
        return self.generator

    def evaluator(self) -> Evaluator:
        """Measure DoF."""
        return GeneratorEvaluator(self.attached_data, self.net, self.generator)

    def predict_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
        """Do nothing: there is nothing to train."""
