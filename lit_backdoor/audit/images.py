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

from lit_backdoor.chain.importing import read_names
from lit_backdoor.chain.testing import build
from lit_backdoor.data import Split
from lit_backdoor.data.sources import CsvSource, ImageFolderSource, ParquetSource, Source
from lit_backdoor.disk import part_of
from lit_backdoor.errors import unknown
from lit_backdoor.presets import read_yaml

__all__ = ["Data", "Images", "open_images", "read_outputs"]

MOST = 1_000  # images that are taken; more make detectors slower, not better
LEAST = 20
_PAIR = 2  # images of a class that detectors need to judge it

Data = str | Path | Mapping[str, Any] | Source


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
        pixels = _open(self.data, size).test().images(self.index)
        if pixels.shape[2:] == (size, size):
            return pixels
        resized = F.interpolate(pixels.float(), (size, size), mode="bilinear", antialias=True, align_corners=False)
        return resized.round().clamp_(0, 255).to(torch.uint8)

    @property
    def native_size(self) -> int:
        """The shorter side of the first image, in pixels."""
        return min(_open(self.data, None).image_size)

    def save(self, pixels: Tensor, path: Path) -> None:
        """Write the images and their labels as a parquet file, which appears whole or not at all."""
        encoded = [_png(image) for image in pixels]
        part = part_of(path)
        pq.write_table(pa.table({"image": encoded, "label": self.labels.numpy()}), part)
        part.rename(path)


def open_images(data: Data, outputs: Mapping[str, int], num_classes: int, seed: int = 0, most: int = MOST) -> Images:
    """Open a source and choose at most so many of its images, each class by its share.

    Args:
        data: A folder of class folders, or of ``train`` and ``test``, of which the test part is taken; a parquet file,
            or a folder of them; a table (``.csv``); a YAML file that names a source by its class path, its content,
            or a source.
        outputs: The model's output for each class by its name, as far as known.
        num_classes: Outputs of the model.
        seed: Seed of the choice.
        most: Images to take.

    Raises:
        FileNotFoundError: If there is no such folder or file.
        ValueError: If there are too few images or classes, or it is not known which outputs the classes stand for.
    """
    source = _open(data, None)
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
    names = {output: name for name, output in [*outputs.items(), *zip(source.class_names, found, strict=True)]}
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
        try:
            content = json.loads(Path(given).read_text())
        except (ValueError, RecursionError) as error:
            raise ValueError(f"Expected JSON in {given}: {error}.") from error
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


def _open(data: Data, size: int | None) -> Source:
    """Open a source; images of files are brought to a size while they are decoded."""
    if isinstance(data, Source):
        return data
    if isinstance(data, Mapping):
        return build(data)  # type: ignore[no-any-return]
    path = Path(data).expanduser()
    if not path.exists():
        raise FileNotFoundError(f"Expected a folder of images, a parquet file or a table at '{path}', found none.")
    if path.suffix in (".yaml", ".yml"):
        described = read_yaml(path.read_text())
        if not isinstance(described, Mapping) or "class_path" not in described:
            raise ValueError(f"Expected {path} to name a source: class_path, and init_args.")
        return build(described)  # type: ignore[no-any-return]
    here = str(path)
    if path.suffix == ".parquet" or (path.is_dir() and any(path.glob("*.parquet"))):
        return ParquetSource(here, here, size=size)
    if path.suffix == ".csv":
        return CsvSource(here, here, size=size, crop=size is not None)
    if path.is_file():
        raise ValueError(
            f"Expected a folder of class folders, a parquet file, a table (.csv) or a source (.yaml), got {path}."
        )
    if (path / "train").is_dir() and (path / "test").is_dir():
        here = str(path / "test")
    return ImageFolderSource(here, here, size=size, crop=size is not None)


def _match(names: Sequence[str], outputs: Mapping[str, int], num_classes: int) -> tuple[list[int], list[str]]:
    """Find the output that each class of the data stands for; also says what was guessed."""
    beyond = [name for name, output in outputs.items() if output >= num_classes]
    if beyond:
        raise ValueError(f"Expected outputs from 0 to {num_classes - 1}, got {outputs[beyond[0]]} for '{beyond[0]}'.")
    if outputs:
        if strange := [name for name in names if name not in outputs]:
            raise unknown("class of the images, whose output --classes does not say,", strange[0], outputs)
        return [outputs[name] for name in names], []
    if len(names) > num_classes:
        raise ValueError(
            f"Expected images of at most the model's {num_classes} classes, got {len(names)} classes: "
            f"{', '.join(names[:5])}, … Take out those that it does not know, or give --classes FILE."
        )
    if all(name.isdecimal() and int(name) < num_classes for name in names):
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
