"""What a report may look at: the results of a chain, its bundles, their histories, and the data they are about."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from lit_backdoor.bundle import Bundle, open_bundle
from lit_backdoor.data import BackdoorDataModule
from lit_backdoor.data.samplers import Draw
from lit_backdoor.functional.projection import Projection
from lit_backdoor.page.words import title

__all__ = ["Run"]

Stage = dict[str, Any]


@dataclass(frozen=True)
class Run:
    """A finished chain.

    Attributes:
        folder: Where its ``results.json`` and its bundles lie.
        results: The contents of ``results.json``.
        data: The data module of the chain.
        command: The command line that repeats it.
        projection: How logits are brought to the plane: ``mds`` or ``tsne``.
    """

    folder: Path
    results: dict[str, Any]
    data: BackdoorDataModule
    command: str
    projection: Projection = "mds"

    @property
    def title(self) -> str:
        """What the run is called."""
        return title(self.results)

    @property
    def stages(self) -> list[Stage]:
        """The stages, in the order they ran."""
        return list(self.results["stages"])

    def numbers(self, name: str) -> list[Any]:
        """Give a number of each stage that has one of that name, in order; None where it does not exist."""
        return [stage["metrics"][name] for stage in self.stages if name in stage["metrics"]]

    def bundle(self, stage: Stage) -> Bundle | None:
        """Open what a stage left; None where it is not there any more."""
        try:
            return open_bundle(self.folder / stage["bundle"])
        except FileNotFoundError:
            return None

    def last(self, kind: str) -> Bundle | None:
        """Open the last bundle of a kind that is there."""
        bundles = (self.bundle(stage) for stage in reversed(self.stages) if stage["kind"] == kind)
        return next((bundle for bundle in bundles if bundle is not None), None)

    def history(self, stage: Stage) -> list[dict[str, float]]:
        """Give the numbers of each epoch of a stage; empty where none were kept."""
        file = self.folder / stage["bundle"] / "history.json"
        return list(json.loads(file.read_text())) if file.is_file() else []

    @cached_property
    def before(self) -> Stage | None:
        """The suspect that the summary starts from: the first with its numbers, without a summary the first at all."""
        return self._suspect("before", first=True)

    @cached_property
    def after(self) -> Stage | None:
        """The suspect that the summary ends with; None where the chain cleans nothing."""
        return None if self.results["summary"]["after"] is None else self._suspect("after", first=False)

    @cached_property
    def nets(self) -> dict[str, nn.Module]:
        """The classifiers ``before`` and ``after`` the defense, as far as they are there, in eval mode on the CPU."""
        nets = {}
        for role, stage in (("before", self.before), ("after", self.after)):
            bundle = self.bundle(stage) if stage else None
            if bundle is not None:
                nets[role] = bundle.build()
        return nets

    @cached_property
    def maker(self) -> Bundle | None:
        """The last generator that is there; else a trigger that was recovered, alone or beside a report of classes."""
        bundles = (self.last(kind) for kind in ("generator", "trigger", "targets"))
        return next((bundle for bundle in bundles if bundle is not None and bundle.info["model"] is not None), None)

    @property
    def recovered(self) -> bool:
        """Whether the `maker` is a trigger that was recovered, not a generator."""
        return self.maker is not None and self.maker.kind != "generator"

    def made(self, images: Tensor) -> Tensor | None:
        """Make images of clean ones ``[B, C, H, W]`` by the `maker`; None without one."""
        with torch.no_grad():
            return None if self.maker is None else cast(Tensor, self.maker.build()(images)).clamp(0, 1)

    def batch(self, view: str, rows: Tensor) -> dict[str, Any]:
        """Give some rows of a view, by their positions in it, as its loader would."""
        return self.data.images(self.data.get_view(view)[Draw(rows, torch.ones(len(rows), dtype=torch.bool), 0, 0)])

    def class_name(self, label: int) -> str:
        """Name a class; a classifier may have more classes than the data names."""
        names = self.data.class_names
        return names[label] if 0 <= label < len(names) else f"class {label}"

    def _suspect(self, role: str, first: bool) -> Stage | None:
        """Find a stage of the summary by its name; by its numbers in files that do not have the name yet."""
        wanted = self.results["summary"][role]
        name = self.results["summary"].get("stages", {}).get(role)
        suspects = [stage for stage in self.stages if stage["kind"] == "suspect"]
        if name is not None:
            suspects = [stage for stage in suspects if stage["name"] == name]
        elif wanted is not None:
            suspects = [
                stage for stage in suspects if all(stage["metrics"].get(key) == value for key, value in wanted.items())
            ]
        return suspects[0 if first else -1] if suspects else None
