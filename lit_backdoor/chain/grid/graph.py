"""The graph of a grid: stages that several cells share are nodes of their own, and each cell is one. Needs no torch."""

from __future__ import annotations

import hashlib
import json
import shlex
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from lit_backdoor.chain.compose import compose
from lit_backdoor.chain.grid.cells import Cell
from lit_backdoor.chain.keys import stage_identities, stage_kin
from lit_backdoor.chain.relapse import with_relapse
from lit_backdoor.chain.store import Store

__all__ = ["Node", "connect"]


@dataclass(frozen=True)
class Node:
    """What one command makes: a stage that several cells share, or the rest of a cell with its ``results.json``.

    Attributes:
        name: What people read, and the name of its log.
        identity: The stage's, or that of the whole cell.
        cell: A cell that the command belongs to.
        stage: The shared stage; None for a cell.
        stages: The identities of all stages of its chain that it makes or takes, by their names.
        makes: Names of those that no other node makes.
        kin: For each of those, what it takes as long as.
        needs: Names of the nodes whose bundles it takes from the store.
        target: Whether its stages are ``given`` the attacker's class, find it (``detected``) or use none (``none``).
    """

    name: str
    identity: str
    cell: Cell
    stage: str | None
    stages: Mapping[str, str]
    makes: tuple[str, ...]
    kin: Mapping[str, str]
    needs: tuple[str, ...]
    target: Literal["given", "detected", "none"] = "none"

    def folder(self, out: Path) -> Path:
        """Say where it writes."""
        return out / "cells" / self.name if self.stage is None else out / "stages" / self.identity

    def command(self, out: Path) -> list[str]:
        """Give the arguments of ``lit-backdoor`` that make it."""
        words = [*self.cell.words, "--out", str(self.folder(out)), "--no-report"]
        return words if self.stage is None else [*words, "--until", self.stage]

    def line(self, out: Path) -> str:
        """Give the command as a person would type it."""
        return shlex.join(["lit-backdoor", *self.command(out)])

    def is_made(self, out: Path, store: Store) -> bool:
        """Say whether its result is there; whether that is whole shows when it is used."""
        if self.stage is not None:
            return _is_stored(self.identity, store)
        try:
            results = json.loads((self.folder(out) / "results.json").read_text())
            keys = {stage["name"]: stage["key"] for stage in results["stages"]}
        except (OSError, ValueError, KeyError, TypeError):
            return False
        return keys == {name: store.key_of(identity) for name, identity in self.stages.items()}

    def unmade(self, store: Store) -> list[str]:
        """Name the stages that it would have to make now."""
        return [name for name in self.makes if not _is_stored(self.stages[name], store)]


def _is_stored(identity: str, store: Store) -> bool:
    key = store.key_of(identity)
    return key is not None and store.has(key)


def connect(cells: Sequence[Cell]) -> list[Node]:
    """Compose the chains of cells and find what they share; nodes come after those that they need.

    Raises:
        ValueError: If a chain cannot be composed; names the cell.
    """
    chains = {}
    for cell in cells:
        try:
            chain = compose(cell.defense, cell.settings, cell.seed, setup=cell.setup, attack=cell.attack)
        except ValueError as error:
            raise ValueError(f"Cell {cell.name} of the grid: {error}") from error
        chains[cell] = with_relapse(chain) if cell.relapse else chain
    identities = {cell: stage_identities(chain) for cell, chain in chains.items()}
    users = Counter(identity for found in identities.values() for identity in set(found.values()))
    shared: dict[str, Node] = {}
    last = []
    for cell, chain in chains.items():
        own = identities[cell]
        for stage, identity in own.items():
            if users[identity] > 1 and identity not in shared:
                inputs = chain["stages"][stage].get("inputs", {}).values()
                needs = tuple(dict.fromkeys(shared[own[source]].name for source in inputs))
                kin = {stage: stage_kin(chain, stage)}
                name = _shared_name(stage, cell, shared)
                shared[identity] = Node(name, identity, cell, stage, {stage: identity}, (stage,), kin, needs)
        rest = tuple(stage for stage, identity in own.items() if users[identity] == 1)
        needs = tuple(dict.fromkeys(shared[identity].name for identity in own.values() if identity in shared))
        kin = {stage: stage_kin(chain, stage) for stage in rest}
        text = json.dumps([own, chain.get("summary")], sort_keys=True)
        whole = hashlib.sha256(text.encode()).hexdigest()[:32]
        last.append(Node(cell.name, whole, cell, None, own, rest, kin, needs, _target(chain)))
    return [*shared.values(), *last]


def _target(chain: Mapping[str, Any]) -> Literal["given", "detected", "none"]:
    """Say where the stages of a chain have the attacker's class from."""
    stages = chain["stages"].values()
    if any("model.target" in stage.get("inputs", {}) for stage in stages):
        return "detected"
    arguments = (stage["model"].get("init_args") or {} for stage in stages)
    return "given" if any(given.get("target") is not None for given in arguments) else "none"


def _shared_name(stage: str, cell: Cell, shared: Mapping[str, Node]) -> str:
    """Name a shared stage after the first cell that has it: a victim without the defense, which does not concern it."""
    short = Cell(cell.setup, cell.attack, stage, cell.seed).name
    taken = {node.name for node in shared.values()}
    return short if short not in taken else f"{stage}-of-{cell.name}"
