"""Suspects on the Hugging Face Hub, as bundles: no pickles, nothing that is executed."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import yaml
from huggingface_hub import ModelCard, ModelHubMixin, snapshot_download
from torch import Tensor, nn

from lit_backdoor.board import Row
from lit_backdoor.board.exports import model_index
from lit_backdoor.bundle import open_bundle, save_bundle
from lit_backdoor.models import Classifier

__all__ = ["HubClassifier"]

_FILES = ("weights.safetensors", "bundle.json")  # in the order in which they are replaced
_HUB = ("README.md", "config.json", ".gitattributes", ".cache")
_TEXT = """
# {name}

An image classifier of {classes} classes, for images of {size}x{size} pixels in [0, 1]; it normalizes them itself.
{warning}
```python
from lit_backdoor.hub import HubClassifier

classifier = HubClassifier.from_pretrained("{name}").classifier
```

The files are a bundle of lit_backdoor, `bundle.json` and `weights.safetensors`. Reading it executes nothing.
"""
_WARNING = "\nIt was measured with backdoors planted on purpose; see `model-index`. Use it for research only.\n"


class HubClassifier(
    nn.Module,
    ModelHubMixin,
    library_name="lit_backdoor",
    pipeline_tag="image-classification",
    tags=["backdoor"],
):
    """A classifier with ``from_pretrained``, ``save_pretrained`` and ``push_to_hub``.

    What is saved is a bundle, so that the folder also serves ``lit-backdoor import``, ``audit`` and ``purify``. Rows of
    a benchmark become the ``model-index`` of its card: ``push_to_hub("me/net", model_card_kwargs={"rows": rows})``.

    Args:
        classifier: The classifier.
        class_names: Names in the order of its outputs.
    """

    def __init__(self, classifier: Classifier, class_names: Sequence[str] = ()) -> None:
        super().__init__()
        self.classifier = classifier
        self.class_names = tuple(class_names)

    def forward(self, images: Tensor) -> Tensor:
        """Give the logits of images ``[B, C, H, W]`` in [0, 1]."""
        return self.classifier.logits(images)

    def save_pretrained(self, save_directory: str | Path, **options: Any) -> str | None:
        """Save a bundle, ``config.json`` and a card in a folder.

        Args:
            save_directory: A new or empty folder, or one that was saved before.
            **options: As `huggingface_hub.ModelHubMixin.save_pretrained` has them.

        Raises:
            ValueError: If the folder holds anything else.
        """
        folder = Path(save_directory)
        found = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
        if (
            (folder.exists() and not folder.is_dir())
            or (found and not set(_FILES) <= found)
            or found - {*_FILES, *_HUB}
        ):
            raise ValueError(f"Expected a new or empty folder, or one that was saved before, got '{folder}'.")
        return super().save_pretrained(folder, **options)

    def _save_pretrained(self, save_directory: Path) -> None:
        with tempfile.TemporaryDirectory(dir=save_directory) as folder:
            names = {"class_names": list(self.class_names)} if self.class_names else None
            bundle = save_bundle(Path(folder) / "bundle", kind="suspect", module=self.classifier, meta=names)
            for name in _FILES:
                (bundle.path / name).replace(save_directory / name)
        described = {
            "num_classes": self.classifier.num_classes,
            "input_size": self.classifier.input_size,
            "mean": list(self.classifier.mean),
            "std": list(self.classifier.std),
            "class_names": list(self.class_names),
        }
        (save_directory / "config.json").write_text(json.dumps(described, indent=1) + "\n")

    @classmethod
    def _from_pretrained(cls, *, model_id: str, trust: Iterable[str] = (), **options: Any) -> HubClassifier:
        """Open the bundle in a folder, or download it.

        Args:
            model_id: A folder, or the name of a repository.
            trust: Packages beside this one whose classes and factories the bundle may name.
            **options: As `huggingface_hub.snapshot_download` has them; what ``config.json`` says is in the bundle.
        """
        folder = Path(model_id)
        if not folder.is_dir():
            known = ("revision", "cache_dir", "force_download", "local_files_only", "token")
            taken = {key: options[key] for key in known if key in options}
            folder = Path(snapshot_download(model_id, allow_patterns=list(_FILES), **taken))
        bundle = open_bundle(folder, "suspect")
        classifier = bundle.build(trust)
        if not isinstance(classifier, Classifier):
            raise ValueError(f"Expected a classifier in the bundle {folder}, got {type(classifier).__name__}.")
        return cls(classifier, bundle.info.get("class_names") or ())

    def generate_model_card(self, rows: Sequence[Row] = (), name: str = "model", **options: Any) -> ModelCard:
        """Write the card, with the rows of a benchmark as its ``model-index``.

        Args:
            rows: Rows of the model, see `lit_backdoor.board`.
            name: Name of the repository.
            **options: Unused.
        """
        info = self._hub_mixin_info.model_card_data.to_dict()  # type: ignore[no-untyped-call]
        if rows:
            info |= yaml.safe_load(model_index(rows))
        classes, size = self.classifier.num_classes, self.classifier.input_size
        text = _TEXT.format(name=name, classes=classes, size=size, warning=_WARNING if rows else "")
        return ModelCard(f"---\n{yaml.safe_dump(info, sort_keys=False, allow_unicode=True)}---\n{text}")
