"""The cleaned model in the form that the suspect came in, or as a bundle where that cannot hold it."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any, NamedTuple

from lit_backdoor.bundle import Bundle
from lit_backdoor.chain.folders import copy_whole
from lit_backdoor.models import Classifier, save_like

__all__ = ["Returned", "write_returned"]


class Returned(NamedTuple):
    """What was written.

    Attributes:
        path: Where.
        form: ``file``, ``folder`` or ``bundle``.
        adds: Class of what the defense put around or into the net; None where only weights changed.
        left: Other weights in the file, which stayed as they were.
    """

    path: Path
    form: str
    adds: str | None
    left: list[str]


def write_returned(suspect: Bundle, cleaned: Bundle, model: Path, path: Path, part: str | None) -> Returned:
    """Write the cleaned model to a path of our own; what an earlier run left there is replaced.

    Args:
        suspect: The suspect's bundle.
        cleaned: That of the defense.
        model: The file or folder that the suspect was loaded from.
        path: Where to write.
        part: Dotted place of the weights in the file.
    """
    if path.is_dir():
        shutil.rmtree(path)
    path.unlink(missing_ok=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    adds = None if cleaned.info["model"] == suspect.info["model"] else _name(cleaned.info["model"])
    if adds is not None or (model / "bundle.json").is_file():
        copy_whole(cleaned.path, path)
        return Returned(path, "bundle", adds, [])
    classifier = cleaned.build()
    assert isinstance(classifier, Classifier)  # described as the suspect is
    left = save_like(classifier, model, path, part)
    return Returned(path, "folder" if path.is_dir() else "file", None, left)


def _name(described: Any) -> str:
    return str(described["class_path"]).rpartition(".")[2]
