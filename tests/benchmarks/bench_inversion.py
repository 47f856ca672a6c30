"""Seconds per epoch of BTI-DBF's mask and generator phases, where they go, and the Trainer's share.

python tests/benchmarks/bench_inversion.py [--channels 64] [--root 2500] [--steps 15] [--precision bf16-mixed]

A ResNet-18 on 32 x 32 images (synthetic signs), batches of 128. Each phase runs ``--steps`` steps through the Trainer
and in a bare loop of the same mathematics, in turn; an epoch is the root set's number of batches. Weights are random:
they do not matter to speed.

On Linux, memory that glibc gives back to the system and takes again costs either loop up to 10 %, by chance of where it
lies. To keep it out of the figures: MALLOC_MMAP_MAX_=0 MALLOC_TRIM_THRESHOLD_=17179869184 before the command.
"""

from __future__ import annotations

import argparse
import statistics
import time
import warnings
from contextlib import nullcontext

import lightning.pytorch as pl
import torch
from lightning.fabric.utilities import move_data_to_device

from lit_backdoor.data import BackdoorDataModule, Split, SyntheticSigns
from lit_backdoor.defenses.btidbf import BTIDBFInversion, Decoupling, InversionSettings
from lit_backdoor.functional.decoupling import inversion_loss, mask_loss, soft_mask
from lit_backdoor.models import PatternedUNet, TimmClassifier
from lit_backdoor.triggers import named_attack

SKIP = 3  # steps before the clock starts


class Clock(pl.Callback):
    """Time the steps of each phase after the first few."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        wait()
        if batch_idx + 1 == SKIP:
            self.started = time.perf_counter()
        self.seconds[pl_module.span.phase] = time.perf_counter() - getattr(self, "started", 0)


def wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def make(given: argparse.Namespace) -> tuple[BTIDBFInversion, BackdoorDataModule]:
    data = BackdoorDataModule(
        SyntheticSigns(train_per_class=given.root // 16 + 400), Split(root_pool=given.root, root=given.root),
        named_attack("badnets"), batch_size=128,
    )  # fmt: skip
    suspect = TimmClassifier("resnet18", data.num_classes, 32, channels=given.channels).eval()
    return BTIDBFInversion(suspect, Decoupling(epochs=1), InversionSettings(epochs=1), PatternedUNet(32)), data


def through_trainer(given: argparse.Namespace) -> dict[str, float]:
    stage, data = make(given)
    clock = Clock()
    trainer = pl.Trainer(
        accelerator="auto", devices=1, precision=given.precision, max_epochs=2, limit_val_batches=0, logger=False,
        limit_train_batches=given.steps + SKIP, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, callbacks=[clock],
    )  # fmt: skip
    trainer.fit(stage, data)
    return {phase: seconds / given.steps for phase, seconds in clock.seconds.items()}


class Bare:
    """The same two steps, written out, with a clock around each part."""

    def __init__(self, given: argparse.Namespace) -> None:
        self.stage, self.data = make(given)
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.stage.configure_model()
        self.stage.to(self.device).eval()
        self.given = given
        self.parts: dict[str, float] = {}
        self.net, self.probe = self.stage.subject.requires_grad_(False), self.stage.probe
        for module in self.probe.modules():
            module.train(isinstance(module, torch.nn.modules.batchnorm._BatchNorm))
        self.mask_optimizer = torch.optim.Adam([self.stage.raw_mask], lr=0.1)
        self.optimizer = torch.optim.Adam(self.stage.generator.parameters(), lr=1e-3)

    def part(self, name: str, since: float) -> float:
        wait()
        now = time.perf_counter()
        self.parts[name] = self.parts.get(name, 0) + now - since
        return now

    def autocast(self):
        mixed = self.given.precision == "bf16-mixed"
        return torch.autocast(self.device.type, torch.bfloat16) if mixed else nullcontext()

    def mask(self, images: torch.Tensor, labels: torch.Tensor, now: float) -> float:
        with self.autocast():
            with torch.no_grad():
                features = self.probe.features(images)
            now = self.part("mask: features", now)
            loss = mask_loss(self.probe.head, features, soft_mask(self.stage.raw_mask), labels)
        self.mask_optimizer.zero_grad()
        loss.backward()
        self.mask_optimizer.step()
        return self.part("mask: head and mask", now)

    def invert(self, images: torch.Tensor, labels: torch.Tensor, now: float) -> float:
        with self.autocast():
            generated = self.stage.generator(images)
            now = self.part("invert: generator forward", now)
            with torch.no_grad():
                features = self.probe.features(images)
            now = self.part("invert: features of images", now)
            found = self.probe.features(generated)
            parts = inversion_loss(images, generated, features, found, self.stage.mask, tau=self.stage.tau)
            beyond = 10 * torch.relu(parts.image / self.stage.tau - 1)
            loss = beyond + 0.01 * parts.benign - torch.log(parts.backdoor + 1e-6)
            now = self.part("invert: features of generated images", now)
        self.optimizer.zero_grad()
        loss.backward()
        now = self.part("invert: backward through both nets", now)
        self.optimizer.step()
        return self.part("invert: Adam", now)

    def run(self) -> dict[str, float]:
        seconds = {}
        for phase, step in (("mask", self.mask), ("invert", self.invert)):
            if phase == "invert":
                self.probe.eval()
            batches = iter(self.data.loader("root", batch_size=128, shuffle=True, steps=self.given.steps + SKIP))
            for number in range(self.given.steps + SKIP):
                if number == SKIP:
                    started = time.perf_counter()
                    self.parts = {name: total for name, total in self.parts.items() if not name.startswith(phase)}
                now = time.perf_counter()
                batch = self.data.images(move_data_to_device(next(batches), self.device), training=True)
                step(batch["image"], batch["label"], self.part(f"{phase}: batch", now))
            seconds[phase] = (time.perf_counter() - started) / self.given.steps
        return seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--channels", type=int, default=64)
    parser.add_argument("--root", type=int, default=2500)
    parser.add_argument("--steps", type=int, default=15)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--precision", default="bf16-mixed")
    given = parser.parse_args()
    warnings.filterwarnings("ignore")
    steps = given.root // 128
    given.steps = min(given.steps, steps - SKIP)  # the Trainer has no more in an epoch
    ratios: dict[str, list[float]] = {"mask": [], "invert": []}
    for number in range(given.rounds):
        # where memory lies makes some percent either way, so each goes first in turn, and the median counts
        if number % 2:
            bare = Bare(given)
            hand = bare.run()
            trainer = through_trainer(given)
        else:
            trainer, bare = through_trainer(given), Bare(given)
            hand = bare.run()
        for phase in ratios:
            ratios[phase].append(trainer[phase] / hand[phase])
            print(
                f"{phase}: {trainer[phase] * steps:.2f} s an epoch of {steps} steps through the Trainer, "
                f"{hand[phase] * steps:.2f} s bare, ratio {ratios[phase][-1]:.3f}", flush=True,
            )  # fmt: skip
    for name, total in bare.parts.items():
        print(f"  {name}: {total / given.steps * steps:.2f} s an epoch")
    for phase, found in ratios.items():
        print(f"{phase}: median ratio {statistics.median(found):.3f} ({torch.get_num_threads()} threads)")


if __name__ == "__main__":
    main()
