"""The person's images: read from any source, under the labels that are the model's outputs, of the model's size."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from lit_backdoor.audit.sources import Data, open_source
from lit_backdoor.chain.importing import read_json, read_names
from lit_backdoor.data import Split
from lit_backdoor.disk import part_of
from lit_backdoor.errors import unknown

__all__ = ["Images", "open_images", "read_outputs"]

MOST = 1_000  # images that are taken; more make detectors slower, not better
LEAST = 20
_PAIR = 2  # images of a class that detectors need to judge it
_PROBE = 32  # pixels, where only labels are read


@dataclass(frozen=True)
class Images:
    """Images that were chosen from a source.

    Attributes:
        data: Where they come from, as it was given.
        index: Rows of the source, int64 ``[N]``.
        labels: The model's output that stands for each image's class, int64 ``[N]``.
        names: Names of all outputs.
        notes: What was guessed, or will be missed.
    """

    data: Data
    index: Tensor
    labels: Tensor
    names: tuple[str, ...]
    notes: tuple[str, ...]

    def pixels(self, size: int) -> Tensor:
        """Read the images, cut to squares and resized to ``size`` pixels a side: uint8 ``[N, 3, size, size]``."""
        pixels = open_source(self.data, size).test().images(self.index)
        if pixels.shape[2:] == (size, size):
            return pixels
        resized = F.interpolate(pixels.float(), (size, size), mode="bilinear", antialias=True, align_corners=False)
        return resized.round().clamp_(0, 255).to(torch.uint8)

    @property
    def native_size(self) -> int:
        """The shorter side of the first image, in pixels."""
        return min(open_source(self.data, None).image_size)

    def save(self, pixels: Tensor, path: Path) -> None:
        """Write the images, their labels and the names of all outputs as a parquet file, whole or not at all."""
        encoded = [_png(image) for image in pixels]
        part = part_of(path)
        names = {"names": self.names, "_type": "ClassLabel"}  # where the Hub has them
        table = pa.table({"image": encoded, "label": self.labels.numpy()})
        described = json.dumps({"info": {"features": {"label": names}}})
        pq.write_table(table.replace_schema_metadata({"huggingface": described}), part)
        part.rename(path)


def open_images(data: Data, outputs: Mapping[str, int], num_classes: int, seed: int = 0, most: int = MOST) -> Images:
    """Open a source and choose at most so many of its images, each class by its share.

    Args:
        data: What `lit_backdoor.audit.sources.open_source` takes, such as a folder of class folders.
        outputs: The model's output for each class by its name, as far as known.
        num_classes: Outputs of the model.
        seed: Seed of the choice.
        most: Images to take.

    Raises:
        FileNotFoundError: If there is no such folder or file.
        ValueError: If there are too few images or classes, or it is not known which outputs the classes stand for.
    """
    source = open_source(data, _PROBE)
    source.prepare()
    rows = source.test()
    found, notes = _match(source.class_names, outputs, num_classes)
    if (rows.labels < 0).any():
        raise ValueError(
            f"Expected images with labels in {_said(data)}, got images without: put them in class folders."
        )
    labels = torch.tensor(found)[rows.labels]
    counts = labels.bincount(minlength=num_classes)
    if len(labels) < LEAST or int((counts >= _PAIR).sum()) < 2:
        raise ValueError(
            f"Expected at least {LEAST} images, and {_PAIR} in each of two or more classes, in {_said(data)}, got "
            f"{len(labels)} images in {int((counts > 0).sum())} classes. Give more; some hundreds are better."
        )
    index = torch.arange(len(labels))
    if len(labels) > most:
        index = Split(root_pool=most).assign(rows, len(source.class_names), seed).root.sort().values
        notes.append(f"{most:,} of the {len(labels):,} images were taken, each class by its share.")
    unseen = int((labels[index].bincount(minlength=num_classes) < _PAIR).sum())
    if unseen:
        notes.append(
            f"{unseen} of {num_classes} classes have fewer than {_PAIR} images. Detectors that compare classes do not "
            "judge them, so a backdoor that leads to one of them may be missed."
        )
    names = {output: name for name, output in [*zip(source.class_names, found, strict=True), *outputs.items()]}
    every = tuple(names.get(output, f"output {output}") for output in range(num_classes))
    return Images(data, index, labels[index], every, tuple(notes))


def read_outputs(given: str | int | Mapping[str, int] | Sequence[str] | None) -> tuple[int | None, dict[str, int]]:
    """Read which output each class stands for.

    Args:
        given: A number of classes; a text file with the name of a class on each line, in the order of the outputs; a
            JSON file of a list of names or of a mapping of names to outputs; the list or mapping; or None.

    Returns:
        The number of classes where it is said, and the outputs by name.

    Raises:
        ValueError: If it is nothing of these, a name stands twice or an output is no number from 0 on.
    """
    content: Any = given
    if isinstance(given, str) and given.endswith(".json") and Path(given).is_file():
        content = read_json(given)
    elif given is None or isinstance(given, str | int):
        count, content = read_names(None if given is None else str(given))
        if not content:
            return count, {}
    if isinstance(content, Mapping):
        if not content or not all(type(output) is int and output >= 0 for output in content.values()):
            raise ValueError(
                f"Expected a mapping of class names to outputs, whole numbers from 0 on, got {content!r:.200}."
            )
        return None, {str(name): output for name, output in content.items()}
    if not isinstance(content, Sequence) or not content or len(set(map(str, content))) < len(content):
        raise ValueError(f"Expected different names of classes in the order of the outputs, got {content!r:.200}.")
    return len(content), {str(name): output for output, name in enumerate(content)}


def _match(names: Sequence[str], outputs: Mapping[str, int], num_classes: int) -> tuple[list[int], list[str]]:
    """Find the output that each class of the data stands for; also says what was guessed."""
    beyond = [name for name, output in outputs.items() if output >= num_classes]
    if beyond:
        raise ValueError(f"Expected outputs from 0 to {num_classes - 1}, got {outputs[beyond[0]]} for '{beyond[0]}'.")
    strange = [name for name in names if name not in outputs] if outputs else []
    numbered = all(name.isdecimal() and int(name) < num_classes for name in names)
    if outputs and not strange:
        return [outputs[name] for name in names], []
    if strange and not numbered and all(name.isdecimal() for name in names):
        raise ValueError(f"Expected labels from 0 to {num_classes - 1}, the model's outputs, got up to {names[-1]}.")
    if strange and not (numbered and len(strange) == len(names)):
        raise unknown("class of the images, whose output --classes does not say,", strange[0], outputs)
    if len(names) > num_classes:
        raise ValueError(
            f"Expected images of at most the model's {num_classes} classes, got {len(names)} classes: "
            f"{', '.join(names[:5])}, … Take out those that it does not know, or give --classes FILE."
        )
    if numbered:
        return [int(name) for name in names], []
    if len(names) == num_classes:
        order = f"the classes in their order: {', '.join(names[:3])}, …"
        return list(range(num_classes)), [f"Guessed that the outputs stand for {order} --classes says another one."]
    raise ValueError(
        f"Expected to know which of the model's {num_classes} outputs stand for the {len(names)} classes of the "
        f"images, such as '{names[0]}'. Give --classes FILE: a name on each line in the order of all outputs, or as "
        f'.json a mapping of names to outputs, {{"{names[0]}": 3, …}}.'
    )


def _said(data: Data) -> str:
    return f"'{data}'" if isinstance(data, str | Path) else "the source"


def _png(image: Tensor) -> bytes:
    file = io.BytesIO()
    Image.fromarray(image.permute(1, 2, 0).contiguous().numpy()).save(file, "PNG", compress_level=1)
    return file.getvalue()
