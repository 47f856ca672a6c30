"""The interfaces of NIST's TrojAI rounds: a mitigation of a net, and a detector that gives a probability."""

from __future__ import annotations

import copy
import json
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor, nn
from torchvision.io import encode_png

from lit_backdoor.models import load_classifier
from lit_backdoor.models.base import evaluating
from lit_backdoor.purify import purify
from lit_backdoor.recipe import trusting
from lit_backdoor.weights import read_weights

__all__ = ["Detector", "MitigatedModel", "Mitigation"]

_IMAGES = (".png", ".jpg", ".jpeg")
_UNCALIBRATED = {"clean": 0.25, "suspicious": 0.5, "backdoored": 0.75}  # where the audit gives no probability


class MitigatedModel:
    """What a mitigation gives back; images go to the net as they are, and so do its logits to who asked.

    Args:
        model: The cleaned net.
    """

    def __init__(self, model: nn.Module) -> None:
        self.model = model

    def preprocess_transform(self, x: Tensor) -> tuple[Tensor, dict[str, Any]]:
        """Give images as they are, and nothing for `postprocess_transform`."""
        return x, {}

    def postprocess_transform(self, logits: Tensor, info: Mapping[str, Any]) -> Tensor:
        """Give logits as they are."""
        return logits


class Mitigation:
    """A shipped defense as a mitigation: ``mitigate_model(model, dataset)``.

    The net must be one of timm or torchvision, or be made by ``arch``.

    Args:
        device: Unused: the Trainer takes a GPU where there is one.
        batch_size: Unused: the defense has its own.
        num_workers: Unused.
        defense: A shipped defense that needs only clean images; ``auto`` lets an audit choose.
        target: The attacker's class, for a defense that takes one.
        settings: ``a.b.c=value`` texts that change the defense's chain.
        seed: Seed of the chain.
        scratch: Folder for temporary files; None for the system's.
        **options: As `load_classifier` takes them. Where ``mean`` and ``std`` are not given the net takes images in
            [0, 1], as in NIST's rounds; the size is that of the images.
    """

    def __init__(
        self,
        device: str = "cpu",
        batch_size: int = 32,
        num_workers: int = 1,
        *,
        defense: str = "pgbd_nt_stamps",
        target: int | None = None,
        settings: Iterable[str] = (),
        seed: int = 0,
        scratch: str | Path | None = None,
        **options: Any,
    ) -> None:
        self.device, self.batch_size, self.num_workers = device, batch_size, num_workers
        self.defense, self.target, self.settings, self.seed = defense, target, tuple(settings), seed
        self.scratch, self.options = scratch, options

    def mitigate_model(self, model: nn.Module, dataset: Any) -> MitigatedModel:
        """Clean a net.

        Args:
            model: From images ``[B, C, H, W]`` to logits; it is not changed.
            dataset: Gives an image ``[C, H, W]`` in [0, 1] and a label for each position, and maybe more. Without a
                label, None or below 0, the net's own answer is taken.

        Raises:
            ValueError: If there are no images, and as `purify` does.
        """
        samples = [dataset[number] for number in range(len(dataset))]
        if not samples:
            raise ValueError("Expected a dataset with clean images, got an empty one.")
        images = [torch.as_tensor(sample[0]).float() for sample in samples]
        with tempfile.TemporaryDirectory(dir=self.scratch) as name:
            folder = Path(name)
            labels = _labels(model, images, [sample[1] for sample in samples])
            _write(folder / "images.parquet", [_png(image) for image in images], labels)
            state = model.state_dict()
            state.update({key: value.cpu() for key, value in state.items()})  # the names of layers stay beside it
            torch.save(state, folder / "model.pt")
            given: dict[str, Any] = {
                "size": int(images[0].shape[-1]),
                **_plain(int(images[0].shape[0])),
                **self.options,
            }
            report = purify(
                folder / "model.pt",
                folder / "images.parquet",
                folder / "cleaned.pt",
                defense=self.defense,
                target=self.target,
                settings=self.settings,
                seed=self.seed,
                **given,
            )
            if report["written"] is None:  # an audit found nothing
                return MitigatedModel(copy.deepcopy(model))
            if report["written"]["form"] == "bundle":
                with trusting(filter(None, [self.options.get("arch")])):  # the user named what makes the net
                    return MitigatedModel(load_classifier(folder / "cleaned.pt").to(_device(model)))
            cleaned = copy.deepcopy(model)
            cleaned.load_state_dict(read_weights(folder / "cleaned.pt"))
            return MitigatedModel(cleaned)

    def preprocess_transform(self, x: Tensor) -> tuple[Tensor, dict[str, Any]]:
        """Give images as they are: what a defense adds is part of the net."""
        return x, {}

    def postprocess_transform(self, logits: Tensor, info: Mapping[str, Any] | None = None) -> Tensor:
        """Give logits as they are."""
        return logits


class Detector:
    """The audit as a detector: ``infer`` writes the probability that a net is poisoned.

    Args:
        metaparameter_filepath: Unused.
        learned_parameters_dirpath: Unused: the audit's calibration is shipped.
        load: Reads a model's file into a net. NIST's are pickles, which execute what they name; None reads weights
            only, safely. In their container: ``lambda path: torch.load(path, weights_only=False)``.
        budget: Seconds for a net.
        seed: Seed of the audit.
        **options: As `load_classifier` takes them; ``mean`` and ``std`` as in `Mitigation`.
    """

    def __init__(
        self,
        metaparameter_filepath: str | Path | None = None,
        learned_parameters_dirpath: str | Path | None = None,
        *,
        load: Callable[[str], nn.Module] | None = None,
        budget: float = 240.0,
        seed: int = 0,
        **options: Any,
    ) -> None:
        self.load, self.budget, self.seed, self.options = load, budget, seed, options

    def automatic_configure(self, models_dirpath: str | Path) -> None:
        """Do nothing: there is nothing to learn."""

    def manual_configure(self, models_dirpath: str | Path) -> None:
        """Do nothing: there is nothing to learn."""

    def infer(
        self,
        model_filepath: str | Path,
        result_filepath: str | Path,
        scratch_dirpath: str | Path,
        examples_dirpath: str | Path,
        round_training_dataset_dirpath: str | Path | None = None,
    ) -> float:
        """Write the probability that a model is poisoned, and give it.

        Args:
            model_filepath: The model.
            result_filepath: Where the probability is written.
            scratch_dirpath: Folder for temporary files.
            examples_dirpath: Clean images, each with its label in a ``.json`` of the same name; or class folders.
            round_training_dataset_dirpath: Unused.

        Raises:
            ValueError: As `run_audit` does, or if an image has no label.
        """
        from lit_backdoor.audit import run_audit

        Path(scratch_dirpath).mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=scratch_dirpath) as name:
            folder, model = Path(name), Path(model_filepath)
            if self.load is not None:
                torch.save(self.load(str(model)).cpu().state_dict(), folder / "model.pt")
                model = folder / "model.pt"
            data = _examples(Path(examples_dirpath), folder / "images.parquet")
            given: dict[str, Any] = {**_plain(3), **self.options}
            audit = run_audit(model, data, folder / "audit", budget=self.budget, seed=self.seed, **given)
        found = audit.get("probability")
        probability = float(_UNCALIBRATED.get(str(audit["verdict"]), 0.5) if found is None else found)
        Path(result_filepath).write_text(f"{probability}\n")
        return probability


def _plain(channels: int) -> dict[str, list[float]]:
    """Give the statistics of a net that takes images in [0, 1]."""
    return {"mean": [0.0] * channels, "std": [1.0] * channels}


def _labels(model: nn.Module, images: Sequence[Tensor], given: Sequence[Any]) -> list[int]:
    """Give the label of each image, the net's own answer where there is none."""
    labels = [-1 if label is None else int(label) for label in given]
    missing = [number for number, label in enumerate(labels) if label < 0]
    device = _device(model)
    with evaluating(model):
        for number in missing:
            labels[number] = int(model(images[number][None].to(device)).argmax())
    return labels


def _device(model: nn.Module) -> torch.device:
    first: Tensor = next(iter(model.state_dict().values()))
    return first.device


def _png(image: Tensor) -> bytes:
    pixels = (image * 255).round().clamp(0, 255).to(torch.uint8)
    return bytes(encode_png(pixels, compression_level=1).numpy())


def _write(file: Path, images: Sequence[bytes], labels: Sequence[int]) -> None:
    pq.write_table(pa.table({"image": list(images), "label": list(labels)}), file)


def _examples(folder: Path, file: Path) -> Path:
    """Put images with their labels beside them into one file; class folders stay as they are."""
    found = sorted(path for path in folder.iterdir() if path.suffix.lower() in _IMAGES)
    if not found:
        return folder
    labels = []
    for path in found:
        beside = path.with_suffix(".json")
        if not beside.is_file():
            raise ValueError(f"Expected the label of '{path}' in {beside.name}, found no such file.")
        said = json.loads(beside.read_text())
        labels.append(int(said["clean_label"] if isinstance(said, Mapping) else said))
    _write(file, [path.read_bytes() for path in found], labels)
    return file
