"""Seconds of Neural Cleanse for several numbers of classes.

python tests/benchmarks/bench_neural_cleanse.py [--classes 10 43 200] [--channels 16] [--steps 10] [--precision bf16-mixed]

A ResNet-18 of random weights on 32 x 32 images of noise, batches of 8. ``--steps`` steps run through the Trainer after
a few that do not count; a run is that of the chain ``nc_cifar10_small``, 30 epochs of 32 steps. Every class takes part in
every step, so the time is proportional to their number, but for what the chunks cost.
"""

from __future__ import annotations

import argparse
import time
import warnings

import lightning.pytorch as pl
import torch

from lit_backdoor.data import BackdoorDataModule, Split, TensorSource
from lit_backdoor.defenses.trigger_inversion import NeuralCleanse
from lit_backdoor.models import TimmClassifier

SKIP = 2  # steps before the clock starts
RUN = 30 * 32  # steps of a run
BATCH = 8


class Clock(pl.Callback):
    """Time the steps after the first few."""

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        now = time.perf_counter(), time.process_time()
        if batch_idx + 1 <= SKIP:
            self.started = now
        self.seconds, self.processor = (new - old for new, old in zip(now, self.started, strict=True))


def seconds_per_step(classes: int, given: argparse.Namespace) -> tuple[float, float]:
    """Give the seconds of a step, by the clock and of all cores."""
    count = max(2 * classes, (given.steps + SKIP) * BATCH)
    draw = torch.Generator().manual_seed(0)
    part = (torch.randint(256, (2 * count, 3, 32, 32), generator=draw, dtype=torch.uint8),
            torch.arange(2 * count) % classes)  # fmt: skip
    data = BackdoorDataModule(TensorSource(part, part), Split(root_pool=count), augment=None, batch_size=BATCH)
    suspect = TimmClassifier("resnet18", classes, 32, channels=given.channels)
    clock = Clock()
    trainer = pl.Trainer(
        accelerator="auto", devices=1, precision=given.precision, max_epochs=1, limit_val_batches=0, logger=False,
        limit_train_batches=given.steps + SKIP, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, callbacks=[clock],
    )  # fmt: skip
    trainer.fit(NeuralCleanse(suspect, images_at_once=given.images_at_once), data)
    return clock.seconds / given.steps, clock.processor / given.steps


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--classes", type=int, nargs="+", default=[10, 43, 200])
    parser.add_argument("--channels", type=int, default=16)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--images-at-once", type=int, default=512)
    parser.add_argument("--precision", default="bf16-mixed")
    given = parser.parse_args()
    warnings.filterwarnings("ignore")
    for classes in given.classes:
        step, processor = seconds_per_step(classes, given)
        print(
            f"C={classes}: {step:.3f} s a step ({processor:.3f} of processor time), "
            f"{BATCH * classes / step:.0f} stamped images a second, "
            f"{RUN * step:.0f} s a run of {RUN} steps ({torch.get_num_threads()} threads)", flush=True,
        )  # fmt: skip


if __name__ == "__main__":
    main()
