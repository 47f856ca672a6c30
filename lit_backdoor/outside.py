"""The commands for models from outside, without torch until one runs: import, audit, purify."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

__all__ = ["add_commands", "folder", "some"]


def add_commands(commands: Any) -> None:
    """Add the commands to those of a parser."""
    importing = commands.add_parser(
        "import",
        allow_abbrev=False,
        help="make a suspect of somebody else's model",
        epilog="For example: lit-backdoor import model.pth --size 32 --out suspect",
    )
    importing.set_defaults(run=_import)
    _add_model(importing, "N|FILE", "number of classes, or a file with a name on each line")
    importing.add_argument("--out", metavar="DIR", required=True, type=folder, help="folder of the bundle to write")

    audit = commands.add_parser(
        "audit",
        allow_abbrev=False,
        help="is somebody else's model backdoored?",
        description="Exits with 0 for clean, 1 for suspicious or backdoored, 2 for an error, 128 + n for a signal.",
        epilog="For example: lit-backdoor audit model.pth --data photos --budget 4m --out audit",
    )
    audit.set_defaults(run=_audit)
    _add_model(audit, "FILE", "names in the order of the outputs, one on each line; as .json also names to outputs")
    audit.add_argument(
        "--data",
        metavar="FOLDER",
        required=True,
        type=some,
        help="clean images in class folders; or a parquet file, a table (.csv), a source (.yaml)",
    )
    audit.add_argument("--budget", metavar="TIME", default="4m", help="time for all detectors, such as 90s; default 4m")
    audit.add_argument("--out", metavar="DIR", type=folder, help="folder to write; default one in runs")
    audit.add_argument("--seed", metavar="N", type=int, default=0, help="seed of the detectors; default 0")
    audit.add_argument("--threads", metavar="N", type=int, help="threads of torch; default its own choice")
    audit.add_argument(
        "--fail-on", choices=("suspicious", "backdoored"), default="suspicious", help="what exits with 1"
    )

    purifying = commands.add_parser(
        "purify",
        allow_abbrev=False,
        help="clean somebody else's model by a few clean images, and write it back as it came",
        epilog="For example: lit-backdoor purify model.pth --data photos --with pgbd_nt_stamps --out cleaned.pth",
    )
    purifying.set_defaults(run=_purify)
    _add_model(purifying, "FILE", "names in the order of the outputs, as for audit")
    purifying.add_argument("--data", metavar="FOLDER", required=True, type=some, help="clean images, as for audit")
    purifying.add_argument("--out", metavar="FILE", required=True, type=folder, help="file or folder to write")
    purifying.add_argument(
        "--with",
        dest="defense",
        metavar="NAME|auto",
        default="auto",
        help="a defense (lit-backdoor list defenses), or the one that fits what an audit finds; default auto",
    )
    purifying.add_argument("--target", metavar="CLASS", help="the attacker's class, for a defense that takes one")
    purifying.add_argument(
        "--set",
        dest="settings",
        metavar="a.b.c=value",
        action="append",
        default=[],
        help="set a key of the defense's chain; may be given several times",
    )
    purifying.add_argument("--seed", metavar="N", type=int, default=0, help="seed; default 0")
    purifying.add_argument("--budget", metavar="TIME", default="4m", help="with auto: time for an audit; default 4m")


def _add_model(parser: argparse.ArgumentParser, classes: str, meaning: str) -> None:
    """Add a model from outside and what may be said about it."""
    parser.add_argument(
        "model",
        metavar="MODEL",
        type=some,
        help="a file of weights, a folder of timm or the Hub, or a bundle; it runs no code",
    )
    parser.add_argument(
        "--arch", metavar="NAME", help="timm:NAME, torchvision:NAME or your own module.function; default: found"
    )
    parser.add_argument("--classes", metavar=classes, help=meaning)
    parser.add_argument("--size", metavar="N", type=int, help="side of the images in pixels")
    parser.add_argument("--mean", metavar="X", type=float, nargs="+", help="mean of each channel")
    parser.add_argument("--std", metavar="X", type=float, nargs="+", help="standard deviation of each channel")
    parser.add_argument("--split", metavar="LAYER", help="layer that ends the features; default: found")
    parser.add_argument("--part", metavar="PLACE", help="place of the weights in the file, such as ema.module")
    parser.add_argument(
        "--trust", metavar="MODULE", action="append", default=[], help="a package or module that bundles may name"
    )


def folder(text: str) -> Path:
    """Read a path from the command line; an empty one would be the current folder, as people rarely mean it."""
    if not text:
        raise argparse.ArgumentTypeError("expected a folder, got an empty text")
    return Path(text)


def some(text: str) -> str:
    """Read a text that must not be empty: it would stand for the current folder, or for nothing at all."""
    if not text:
        raise argparse.ArgumentTypeError("expected a text, got an empty one")
    return text


def _import(given: argparse.Namespace) -> int:
    sys.path.append(str(Path.cwd()))  # where the function may lie that makes the net
    from lit_backdoor.chain.importing import run_import

    return run_import(given)


def _audit(given: argparse.Namespace) -> int:
    sys.path.append(str(Path.cwd()))  # where the function may lie that makes the net
    from lit_backdoor.audit.command import audit_command

    return audit_command(given)


def _purify(given: argparse.Namespace) -> int:
    sys.path.append(str(Path.cwd()))  # where the function may lie that makes the net
    from lit_backdoor.purify.command import purify_command

    return purify_command(given)
