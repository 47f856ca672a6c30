"""What a grid has to do: which nodes are there, which can run, which wait, and how long it takes. Needs no torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lit_backdoor.chain.grid.graph import Node
from lit_backdoor.chain.store import Store

__all__ = ["Plan", "make_plan"]


@dataclass(frozen=True)
class Plan:
    """The nodes of a grid by what they need.

    Attributes:
        nodes: All of them, each after those that it needs.
        cached: Nodes whose results are there, or that nothing needs any more.
        ready: Nodes that can run now.
        blocked: Nodes that wait for others, with the names of those.
        seconds: Seconds that the stages to run took when their like last ran, added up.
        unknown: Stages to run whose like never ran here.
    """

    nodes: tuple[Node, ...]
    cached: tuple[Node, ...]
    ready: tuple[Node, ...]
    blocked: tuple[tuple[Node, tuple[str, ...]], ...]
    seconds: float
    unknown: int

    @property
    def wanted(self) -> list[Node]:
        """The nodes to run, each after those that it needs."""
        return [node for node in self.nodes if node not in self.cached]

    def lines(self) -> list[str]:
        """Say it in lines for people."""
        lines = [f"cached   {node.name}" for node in self.cached]
        lines += [f"to run   {node.name}" for node in self.ready]
        lines += [f"blocked  {node.name}, until there is: {', '.join(needs)}" for node, needs in self.blocked]
        count = f"{len(self.ready) + len(self.blocked)} to run ({len(self.blocked)} of them blocked by others)"
        guess = f"about {self.seconds / 3600:.2f} hours, one after another"
        if self.unknown and not self.seconds:
            guess = "how long it takes is not known, since none of its stages ever ran here"
        elif self.unknown:
            guess += f", without {self.unknown} stage{'s' if self.unknown > 1 else ''} that never ran here"
        return [*lines, f"{count}, {len(self.cached)} cached; {guess}"]


def make_plan(nodes: Sequence[Node], out: Path, store: Store) -> Plan:
    """Look up what is there; nothing is opened."""
    made = {node.name for node in nodes if node.is_made(out, store)}
    wanted = {node.name for node in nodes if node.stage is None and node.name not in made}
    for node in reversed(nodes):  # a shared stage is wanted by what needs it
        if node.name in wanted:
            wanted.update(name for name in node.needs if name not in made)
    cached, ready, blocked, seconds, unknown = [], [], [], 0.0, 0
    for node in nodes:
        if node.name not in wanted:
            cached.append(node)
            continue
        missing = tuple(name for name in node.needs if name in wanted)
        if missing:
            blocked.append((node, missing))
        else:
            ready.append(node)
        for stage in node.unmade(store):
            guess = store.expected_seconds(node.kin[stage])
            seconds, unknown = seconds + (guess or 0), unknown + (guess is None)
    return Plan(tuple(nodes), tuple(cached), tuple(ready), tuple(blocked), seconds, unknown)
