"""``lit-backdoor --print-completion SHELL``: what a shell needs to complete commands, flags and shipped names."""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

__all__ = ["SHELLS", "PrintCompletion"]

SHELLS = ("bash", "zsh", "fish")
_NAMES = {"setup": ("setups",), "attack": ("attacks",), "name": ("defenses", "chains")}  # by destination


class PrintCompletion(argparse.Action):
    """Print a completion script for the whole parser, and exit."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: str | Sequence[Any] | None,
        option_string: str | None = None,
    ) -> None:
        """Print it for the shell in ``values``."""
        import shtab  # no other command needs it

        for command, action in _actions(parser):
            metavar = action.metavar if isinstance(action.metavar, str) else ""
            kinds = ("grids",) if command == "grid" and action.dest == "name" else _NAMES.get(action.dest, ())
            if kinds and "NAME" in metavar:
                names = sorted({name for kind in kinds for name in _shipped(kind)})
                action.complete = shtab.cmd(f"printf '%s\\n' {' '.join(names)}")  # type: ignore[attr-defined]
            elif "DIR" in metavar:
                action.complete = shtab.DIRECTORY  # type: ignore[attr-defined]
        sys.stdout.write(shtab.complete(parser, shell=str(values)))
        parser.exit()


def _shipped(kind: str) -> Iterator[str]:
    """Name the configurations of a kind as ``lit-backdoor list`` does: by the last part, where only one has it."""
    from lit_backdoor.presets import list_configs  # reads files

    counts = Counter(key.rpartition("/")[2] for key in list_configs(kind))
    for key in list_configs(kind):
        short = key.rpartition("/")[2]
        yield short if counts[short] == 1 else key


def _actions(parser: argparse.ArgumentParser, command: str = "") -> Iterator[tuple[str, argparse.Action]]:
    """Name the actions of a parser and of its commands, each with its command."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for name, below in action.choices.items():
                yield from _actions(below, name)
        else:
            yield command, action
