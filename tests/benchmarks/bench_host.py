"""CPU milliseconds of a step that has nothing to compute: what the host does while an accelerator would wait.

python tests/benchmarks/bench_host.py [--steps 400] [--rounds 5]

A net of one convolution and one linear layer is trained on batches of 16 images of 8 x 8 pixels: by our stage with its
data module and its trigger; by a plain LightningModule, which logs its loss, and by a bare loop, both on finished
batches. The three run in turn; medians are printed.
"""

from __future__ import annotations

import argparse
import logging
import statistics
import time
import warnings

import lightning.pytorch as pl
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader

from lit_backdoor.data import BackdoorDataModule, Split, TensorSource
from lit_backdoor.models import WrappedClassifier, wrap_classifier
from lit_backdoor.stages import PoisonedTraining
from lit_backdoor.triggers import Attack, Patch

BATCH, SIZE, CLASSES, SKIP = 16, 8, 10, 20


def classifier() -> WrappedClassifier:
    net = nn.Sequential(nn.Conv2d(3, 4, 3, stride=2), nn.ReLU(), nn.Flatten(), nn.Linear(36, CLASSES))
    return wrap_classifier(
        net, split="1", num_classes=CLASSES, input_size=SIZE, mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25)
    )


def source(steps: int) -> TensorSource:
    def part(rows: int) -> tuple[Tensor, Tensor]:
        return torch.randint(0, 256, (rows, 3, SIZE, SIZE), dtype=torch.uint8), torch.arange(rows) % CLASSES

    return TensorSource(part(steps * BATCH), part(100))


def sgd(parameters) -> torch.optim.Optimizer:
    return torch.optim.SGD(parameters, lr=0.01, momentum=0.9)


class Plain(pl.LightningModule):
    """The least that trains a classifier and logs its loss."""

    def __init__(self) -> None:
        super().__init__()
        self.net = classifier()

    def training_step(self, batch, batch_idx):
        loss = F.cross_entropy(self.net(batch[0]), batch[1])
        self.log("loss", loss, on_step=False, on_epoch=True)
        return loss

    def configure_optimizers(self):
        return sgd(self.parameters())


class Clock(pl.Callback):
    """Time the steps after the first few."""

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        if batch_idx + 1 == SKIP:
            self.started = time.process_time()
        self.seconds = time.process_time() - getattr(self, "started", 0.0)


def through_trainer(module: pl.LightningModule, data) -> float:
    clock = Clock()
    trainer = pl.Trainer(
        accelerator="cpu", max_epochs=1, limit_val_batches=0, logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, callbacks=[clock],
    )  # fmt: skip
    trainer.fit(module, data)
    return clock.seconds / (trainer.global_step - SKIP)


def bare(batches: list[tuple[Tensor, Tensor]]) -> float:
    net = classifier().train()
    optimizer = sgd(net.parameters())
    for number, (images, labels) in enumerate(batches):
        if number == SKIP:
            started = time.process_time()
        loss = F.cross_entropy(net(images), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return (time.process_time() - started) / (len(batches) - SKIP)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    warnings.filterwarnings("ignore")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    torch.set_num_threads(1)
    images, labels = torch.rand(given.steps + SKIP, BATCH, 3, SIZE, SIZE), torch.arange(BATCH) % CLASSES
    batches = [(each, labels) for each in images]
    attack = Attack(Patch(2, (1, 1)), rate=0.1)
    data = BackdoorDataModule(source(given.steps + SKIP), Split(root_pool=0), attack, None, batch_size=BATCH)
    found: dict[str, list[float]] = {"stage": [], "plain LightningModule": [], "bare loop": []}
    for _ in range(given.rounds):
        found["stage"].append(through_trainer(PoisonedTraining(classifier(), optimizer=sgd), data))
        found["plain LightningModule"].append(through_trainer(Plain(), DataLoader(batches, batch_size=None)))
        found["bare loop"].append(bare(batches))
    for name, seconds in found.items():
        print(f"{name}: {1000 * statistics.median(seconds):.2f} ms a step, median of {given.rounds}")


if __name__ == "__main__":
    main()
