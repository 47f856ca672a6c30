"""What a GPU does with the package: a victim's epoch, defenses in paper settings, one full-size row of ATClean.

python tests/benchmarks/gpu.py OUT [--minutes 15] [--smoke]

The parts run in order, the ones that matter most first. Each writes a row to OUT/gpu.jsonl when it ends, so that a run
that is cut short keeps what it has; none starts after the minutes are up. CIFAR-10 is read from LIT_BACKDOOR_DATA;
``--smoke`` measures nothing: it runs the two loops on drawn signs and a small net, on any machine.
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from torch.nn import functional as F
from torch.utils.data import DataLoader
from torchvision.transforms import v2

from lit_backdoor.chain import run_chain
from lit_backdoor.data import BackdoorDataModule, CropFlip, Split
from lit_backdoor.data.sources import Cifar10, Source, SyntheticSigns
from lit_backdoor.models import TimmClassifier
from lit_backdoor.stages import PoisonedTraining
from lit_backdoor.stages.optim import sgd_from_scratch
from lit_backdoor.triggers import Attack, Patch

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def synchronized() -> float:
    """Give the time when the device is done with what it was given."""
    if DEVICE == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


class EpochClock(pl.Callback):
    """Times each epoch of a fit."""

    def __init__(self) -> None:
        self.seconds: list[float] = []

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.started = synchronized()

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.seconds.append(synchronized() - self.started)


def our_epochs(source: Source, net: TimmClassifier, batch_size: int, epochs: int = 4) -> list[float]:
    """Train a victim, and give the seconds of each epoch."""
    data = BackdoorDataModule(source, Split(root_pool=0), Attack(Patch(5, (6, 6))), CropFlip(4), batch_size=batch_size)
    clock = EpochClock()
    trainer = pl.Trainer(
        accelerator="auto", devices=1, precision="bf16-mixed", max_epochs=epochs, limit_val_batches=0, logger=False,
        enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False, callbacks=[clock],
    )  # fmt: skip
    trainer.fit(PoisonedTraining(net), data)
    return clock.seconds


class _Pictures(torch.utils.data.Dataset[tuple[torch.Tensor, int]]):
    """Images one by one through transforms, a patch planted before them: how most code of the field serves them."""

    def __init__(self, images: list[Any], labels: list[int]) -> None:
        self.images, self.labels = images, labels
        self.transform = v2.Compose([
            v2.RandomCrop(32, padding=4), v2.RandomHorizontalFlip(), v2.ToImage(), v2.ToDtype(torch.float32, scale=True),
            v2.Normalize([0.5] * 3, [0.25] * 3),
        ])  # fmt: skip

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, row: int) -> tuple[torch.Tensor, int]:
        return self.transform(self.images[row]), self.labels[row]


def plain_epochs(source: Source, net: TimmClassifier, batch_size: int, epochs: int = 2) -> list[float]:
    """Train in a hand-written loop over a loader with four workers, which stands for BackdoorBench's."""
    rows = source.train()
    images = rows.images(torch.arange(len(rows.labels)))
    pictures = _Pictures([v2.functional.to_pil_image(image) for image in images], rows.labels.tolist())
    loader = DataLoader(pictures, batch_size, shuffle=True, num_workers=4, drop_last=True, pin_memory=DEVICE == "cuda")
    net = net.to(DEVICE).train()
    optimizer, seconds = sgd_from_scratch(net.parameters()), []
    for _ in range(epochs):
        start = synchronized()
        for image, label in loader:
            with torch.autocast(DEVICE, torch.bfloat16):
                loss = F.cross_entropy(net(image.to(DEVICE)).float(), label.to(DEVICE))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            loss.item()  # it logs each step
        seconds.append(synchronized() - start)
    return seconds


def chain(name: str, out: Path, *settings: str) -> dict[str, Any]:
    """Run a chain at full size, and give the seconds of its stages and what it measured."""
    found = run_chain(
        name, setup="cifar10", attack="badnets", seed=0, settings=settings, out=out / name.replace("/", "_")
    )
    return {"seconds": {stage["name"]: stage["seconds"] for stage in found["stages"]}, "summary": found["summary"]}


def parts(out: Path, smoke: bool) -> Iterator[tuple[str, Callable[[], Any]]]:
    """Give what is measured, with its goal where there is one, in order."""
    source = SyntheticSigns(train_per_class=40, test_per_class=4) if smoke else Cifar10()

    def net() -> TimmClassifier:
        return TimmClassifier("resnet18", 16 if smoke else 10, 32, channels=8 if smoke else 64)

    yield "victim epoch, batch 512 (goal: 1.0 s)", lambda: our_epochs(source, net(), 512)
    yield "victim epoch, batch 128", lambda: our_epochs(source, net(), 128)
    yield "victim epoch, batch 128, by hand (goal: 10 times ours)", lambda: plain_epochs(source, net(), 128)
    if smoke:
        return
    short = "stages.victim.trainer.max_epochs=15"
    yield "ATClean, paper settings (goal: 40 s)", lambda: chain("atclean/paper", out, short)
    yield "BTI-DBF (U), paper settings", lambda: chain("btidbf_u/paper", out, short)
    yield "PGBD, paper settings", lambda: chain("pgbd/paper", out, short)
    yield "ATClean, one row at full size", lambda: chain("atclean_mixed", out)


def main() -> None:
    """Measure part by part."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--minutes", type=float, default=15)
    parser.add_argument("--smoke", action="store_true")
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    machine = torch.cuda.get_device_name() if DEVICE == "cuda" else platform.processor() or platform.machine()
    end = time.monotonic() + 60 * given.minutes
    with (given.out / "gpu.jsonl").open("a") as rows:
        for what, measure in parts(given.out, given.smoke):
            if time.monotonic() > end:
                print(f"not run: {what}")
                continue
            row = {"what": what, "found": measure(), "machine": machine, "torch": torch.__version__}
            rows.write(json.dumps(row) + "\n")
            rows.flush()
            print(row["what"], row["found"])


if __name__ == "__main__":
    main()
