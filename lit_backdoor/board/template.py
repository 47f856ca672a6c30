"""What the sections of the board look at, and their templates."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from markupsafe import Markup, escape

from lit_backdoor.board.cells import Setup, setups
from lit_backdoor.board.rows import Row
from lit_backdoor.page.template import Section, renderer

__all__ = ["Board", "Section", "render"]


def _breakable(name: str) -> Markup:
    """Let a browser break a name after its underscores and the like."""
    return Markup(re.sub(r"([_@/])", r"\1<wbr>", str(escape(name))))


render = renderer(Path(__file__).parent / "templates", breakable=_breakable)


@dataclass(frozen=True)
class Board:
    """The rows that a board is about."""

    rows: Sequence[Row]

    @cached_property
    def setups(self) -> list[Setup]:
        """The rows by setup."""
        return setups(self.rows)

    @cached_property
    def several(self) -> bool:
        """Whether setups have to be told apart."""
        return len(self.setups) > 1

    @cached_property
    def seeds(self) -> list[int]:
        """All seeds."""
        return sorted({row.seed for row in self.rows})

    @cached_property
    def accesses(self) -> list[str]:
        """What defenses are given, each once."""
        return sorted({row.defense.access for row in self.rows if row.defense.access})
