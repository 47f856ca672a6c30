"""Running of detectors on one model: each is a chain on a generated setup, within what is left of the budget."""

from __future__ import annotations

import time
import warnings
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor, nn

from lit_backdoor.audit.detectors import Detector, Finding, examine
from lit_backdoor.audit.limit import OutOfTimeError, time_limit
from lit_backdoor.bundle import Bundle, open_bundle
from lit_backdoor.chain.classes import trusted
from lit_backdoor.chain.compose import compose
from lit_backdoor.chain.folders import write_whole
from lit_backdoor.chain.run import ChainRun
from lit_backdoor.models import Classifier
from lit_backdoor.models.base import evaluating
from lit_backdoor.recipe import trusting
from lit_backdoor.refusals import one_line
from lit_backdoor.signals import Stopped, received

__all__ = ["Bench"]

_AT_ONCE = 512  # images of 64 pixels that go through the model together
_SPARE, _START = 1.3, 3.0  # factor and seconds of a detector beside its passes through the model
_TIMED = 16  # images


class Bench:
    """A model, images and a folder on which detectors run.

    Args:
        suspect: The model's bundle.
        classifier: The model.
        pixels: The images, uint8 ``[N, C, H, W]``.
        labels: Their classes, int64 ``[N]``.
        images: The parquet file that holds both, and the names of the outputs.
        out: Folder for the setup and the chains.
        seed: Seed of the chains.
        trust: Modules that the model's bundle may name.
    """

    def __init__(
        self,
        suspect: Bundle,
        classifier: Classifier,
        pixels: Tensor,
        labels: Tensor,
        images: Path,
        out: Path,
        seed: int,
        trust: tuple[str, ...] = (),
    ) -> None:
        self.classifier, self.pixels, self.labels = classifier, pixels, labels
        self.out, self.seed, self.trust = out.absolute(), seed, trust
        self.precision = _precision(classifier)
        self.setup = self.out / "audited.yaml"
        source = {
            "class_path": "lit_backdoor.data.sources.ParquetSource",
            "init_args": {"train": str(images.absolute()), "test": str(images.absolute())},
        }
        write_whole(self.setup, yaml.safe_dump(self._setup(suspect, source), sort_keys=False, allow_unicode=True))

    def _setup(self, suspect: Bundle, source: dict[str, Any]) -> dict[str, Any]:
        """Describe the model as a victim, and its images as the root set; there is no attack that anybody knows."""
        data = {
            "source": source,
            "root_source": source,
            "split": {"root_pool": 0},
            "attack": None,
            "augment": None,
            "batch_size": 64,
            "eval_batch_size": self._at_once,
        }
        trainer = {
            "accelerator": "auto", "devices": 1, "precision": self.precision, "num_sanity_val_steps": 0,
            "limit_val_batches": 0, "enable_model_summary": False, "enable_progress_bar": False,
            "callbacks": [{"class_path": "lit_backdoor.audit.limit.TimeLimit"}],
        }  # fmt: skip
        victim = {
            "run": "predict",
            "model": {
                "class_path": "lit_backdoor.stages.GivenSuspect",
                "init_args": {"suspect": str(suspect.path.absolute()), "digest": suspect.hash},
            },
        }
        return {
            "format": 1,
            "description": "A model under audit and clean images",
            "seed": self.seed,
            "questioned": False,
            "trust": list(self.trust),
            "data": {"class_path": "lit_backdoor.data.BackdoorDataModule", "init_args": data},
            "trainer": trainer,
            "stages": {"victim": victim},
            "summary": {"before": "victim"},
        }

    @property
    def _at_once(self) -> int:
        """Images that go through the model together, fewer where they are large."""
        return max(16, min(_AT_ONCE, round(_AT_ONCE * (64 / self.classifier.input_size) ** 2)))

    def speed(self) -> float:
        """Measure how many images go through the model and back in a second."""
        device = next(iter(self.classifier.state_dict().values())).device
        images = (self.pixels[:_TIMED].to(device).float() / 255).requires_grad_()
        seconds = []
        with evaluating(self.classifier), torch.enable_grad():
            for _ in range(3):
                started = time.monotonic()
                with torch.autocast(device.type, torch.bfloat16, enabled=self.precision == "bf16-mixed"):
                    loss = self.classifier(images).float().square().sum()
                torch.autograd.grad(loss, images)[0].sum().item()
                seconds.append(time.monotonic() - started)
        return len(images) / max(min(seconds), 1e-6)

    def run(self, detector: Detector, left: float, speed: float) -> Finding:
        """Run a detector if it fits into the seconds that are left; a failure is a finding, too.

        Raises:
            Stopped: If a signal asked this process to stop.
        """
        needed = _START + _SPARE * detector.work(self.classifier.num_classes) / speed
        if needed > left:
            return Finding(
                detector, "left out", reason=f"It needs about {needed:.0f} s, {max(0, left):.0f} s were left."
            )
        started = time.monotonic()
        try:
            with warnings.catch_warnings(), time_limit(left):
                warnings.simplefilter("ignore")
                finding = examine(detector, self._chain(detector), self.classifier, self.pixels, self.labels)
        except OutOfTimeError as error:
            finding = Finding(detector, "left out", reason=str(error))
        except Exception as error:
            if (number := received()) is not None:  # such as a loader's process that the signal reached first
                raise Stopped(number) from error
            finding = Finding(detector, "failed", reason=one_line(f"{type(error).__name__}: {error}"))
        finding.seconds = time.monotonic() - started
        return finding

    def _chain(self, detector: Detector) -> Bundle:
        """Run a detector's chain and open what it found."""
        settings = []
        if self._at_once < _AT_ONCE and detector.name in ("nc", "pixel"):
            settings.append(f"stages.{detector.stage}.model.init_args.images_at_once={self._at_once}")
        chain = compose(detector.chain, settings, self.seed, setup=str(self.setup), attack="null")
        run = ChainRun(chain, detector.chain, self.out / "detectors" / detector.name, curves=False)
        with trusting(trusted(run.chain)):
            run.run()
        return open_bundle(run.out / detector.stage)


def _precision(classifier: Classifier) -> str:
    """Choose bf16 where it is faster: not for depthwise convolutions, and on a CPU only with units for it."""
    depthwise = any(isinstance(layer, nn.Conv2d) and layer.groups > 1 for layer in classifier.modules())
    units = torch.cuda.is_available() or bool(torch.cpu._is_amx_tile_supported())
    return "bf16-mixed" if units and not depthwise else "32-true"
