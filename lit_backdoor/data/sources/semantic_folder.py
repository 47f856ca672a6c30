"""Images in two folders, without and with a semantic trigger."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor

from lit_backdoor.data.sources.base import Part, digest
from lit_backdoor.data.sources.files import find
from lit_backdoor.data.sources.folder import FileSource
from lit_backdoor.data.sources.listing import Listing, class_folders, image_files, subfolders
from lit_backdoor.errors import check_share

__all__ = ["SemanticFolderSource"]

_CLEAN, _TRIGGER = "clean", "trigger"
_PARTS: tuple[Part, Part] = ("train", "test")


class SemanticFolderSource(FileSource):
    """A folder ``clean`` and a folder ``trigger``, each with one folder per class; the layout of PGBD's occluded faces.

    The column ``trigger`` says which images lie in the folder ``trigger``: name it in a `SemanticTrigger`. Classes are
    in the order of the sorted folder names; a class may lack images with the trigger, but not all without it. The test
    part is a share of each class's images, of those with and of those without the trigger, drawn by a seed.

    Args:
        root: The folder that holds the two, as it is or below ``$LIT_BACKDOOR_DATA``.
        test: Share of the images in the test part, in (0, 1); at least one of each kind that has two.
        size: Side of the square, or height and width, to resize to; None if all images have one size.
        in_memory: Whether to decode all images once and keep them.
        seed: Seed of the draw.

    Raises:
        FileNotFoundError: When used, if a folder is missing.
        ValueError: If the share is out of range; when used, if a class has only images with the trigger, there are no
            images, or one is broken.
    """

    def __init__(
        self,
        root: str,
        test: float = 0.1,
        size: int | tuple[int, int] | None = None,
        in_memory: bool = True,
        seed: int = 0,
    ) -> None:
        super().__init__(size, in_memory)
        self._root, self._seed = root, seed
        self._share = check_share("the share of test images", test)

    @cached_property
    def class_names(self) -> tuple[str, ...]:
        """Names of the folders in ``clean``, sorted."""
        folder = self._folder(_CLEAN)
        names = class_folders(folder)
        for name in subfolders(self._folder(_TRIGGER)):
            if name not in names:
                raise ValueError(f"'{name}': the class has no images without the trigger, no folder in '{folder}'.")
        return names

    def _folder(self, kind: str) -> Path:
        return find(f"{self._root}/{kind}", f"Image folder '{kind}' of '{self._root}'")

    @cached_property
    def _drawn(self) -> dict[Part, tuple[Listing, list[bool]]]:
        """Draw the parts: files, and whether each carries the trigger."""
        drawn: dict[Part, tuple[Listing, list[bool]]] = {part: (Listing(), []) for part in _PARTS}
        generator = torch.Generator().manual_seed(self._seed)
        for label, name in enumerate(self.class_names):
            for kind in (_CLEAN, _TRIGGER):
                files = image_files(self._folder(kind) / name)
                held = min(max(round(self._share * len(files)), 1), len(files) - 1) if files else 0
                order = torch.randperm(len(files), generator=generator).tolist()
                for part, numbers in zip(_PARTS, (order[held:], order[:held]), strict=True):
                    for number in sorted(numbers):
                        folder, file = files[number]
                        drawn[part][0].add(folder, file, label)
                        drawn[part][1].append(kind == _TRIGGER)
        return drawn

    def _list(self, part: Part) -> Listing:
        files, _ = self._drawn[part]
        if not len(files):
            raise ValueError(f"'{self._root}' has too few images in its class folders: none for the {part} part.")
        return files

    def _stamp(self, part: Part) -> str:
        return digest(super()._stamp(part), self._columns(part)[_TRIGGER])

    def _columns(self, part: Part) -> dict[str, Tensor]:
        return {_TRIGGER: torch.tensor(self._drawn[part][1], dtype=torch.bool)}
