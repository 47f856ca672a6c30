"""Images per second of a poisoned-training step: through the Trainer, and in a hand-written loop of the same step.

python tests/benchmarks/bench_training.py [--steps 60] [--batch-size 128] [--rounds 3]

Both train the same ResNet-18 of width 16 on the same poisoned, augmented batches of synthetic signs, in turn; the
median ratio is what to quote.
"""

from __future__ import annotations

import argparse
import statistics
import time
import warnings

import lightning.pytorch as pl
import torch
from torch.nn import functional as F

from lit_backdoor.data import BackdoorDataModule, SyntheticSigns
from lit_backdoor.models import TimmClassifier
from lit_backdoor.stages import PoisonedTraining
from lit_backdoor.triggers import Attack, Patch


class Clock(pl.Callback):
    """Time the steps after the first few."""

    def __init__(self, skip: int) -> None:
        self.skip = skip

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        if batch_idx + 1 == self.skip:
            self.started = time.perf_counter()

    def on_train_epoch_end(self, trainer, pl_module):
        self.seconds = time.perf_counter() - self.started


def through_trainer(data: BackdoorDataModule, steps: int, skip: int) -> float:
    clock = Clock(skip)
    trainer = pl.Trainer(
        accelerator="cpu", precision="bf16-mixed", max_epochs=1, limit_train_batches=steps + skip, limit_val_batches=0,
        logger=False, enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False, callbacks=[clock],
    )  # fmt: skip
    trainer.fit(PoisonedTraining(TimmClassifier("resnet18", 16, 32, channels=16)), data)
    return steps * data.batch_size / clock.seconds


def by_hand(data: BackdoorDataModule, steps: int, skip: int) -> float:
    net = TimmClassifier("resnet18", 16, 32, channels=16).train()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9, nesterov=True, weight_decay=5e-4)
    batches = iter(data.loader("train"))
    for step in range(steps + skip):
        if step == skip:
            started = time.perf_counter()
        batch = data.images(next(batches), training=True)
        with torch.autocast("cpu", torch.bfloat16):
            loss = F.cross_entropy(net(batch["image"]).float(), batch["label"])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return steps * data.batch_size / (time.perf_counter() - started)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    warnings.filterwarnings("ignore")
    skip = 5
    rows = (given.steps + skip) * given.batch_size
    data = BackdoorDataModule(
        SyntheticSigns(train_per_class=rows // 14 + 1), attack=Attack(Patch(5, (6, 6))), batch_size=given.batch_size
    )
    ratios = []
    for _ in range(given.rounds):
        trainer, hand = through_trainer(data, given.steps, skip), by_hand(data, given.steps, skip)
        ratios.append(trainer / hand)
        print(f"Trainer {trainer:.0f} images/s, by hand {hand:.0f} images/s, ratio {ratios[-1]:.3f}", flush=True)
    print(f"median ratio {statistics.median(ratios):.3f} ({torch.get_num_threads()} threads)")


if __name__ == "__main__":
    main()
