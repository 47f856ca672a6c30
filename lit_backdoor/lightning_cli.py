"""LightningCLI for every stage: ``fit``, ``validate``, ``test``, ``predict``."""

from __future__ import annotations

import argparse
import inspect
import re
import sys
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

import lightning.pytorch as pl
import torch
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI

from lit_backdoor.data import BackdoorDataModule
from lit_backdoor.errors import unknown
from lit_backdoor.presets import read_config
from lit_backdoor.recipe import arguments_of
from lit_backdoor.stages import BundleWriter, Stage

__all__ = ["BackdoorCLI"]

# What a mistake is answered with; the list of all options would push the message off the screen.
_USAGE = {
    verb: {
        "usage": f"lit-backdoor {verb} [--config FILE] [--trainer.… --model.… --data.…]",
        "epilog": "Stages for --model: lit-backdoor list stages, lit-backdoor list defenses. Arguments of one: "
        f"lit-backdoor {verb} --model.help CLASS_PATH",
    }
    for verb in ("fit", "validate", "test", "predict")
}


class _Parser(LightningArgumentParser):
    """Adds the nearest known name to the parser's message where a class or an option is not known."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Print the message and leave with exit code 2."""
        super().error("\n".join([message, *_nearest(message)]), ex)


class BackdoorCLI(LightningCLI):
    """Run one stage from the command line or a configuration file.

    Args:
        args: Command-line arguments, the subcommand first.
        run: Whether to run; without it the configuration is only parsed, into ``config``, and what is wrong with it is
            an ``ArgumentError`` instead of exit code 2.
    """

    def __init__(self, args: list[str], run: bool = True) -> None:
        self._run = run
        _check_configs(args)
        super().__init__(
            Stage,
            BackdoorDataModule,
            subclass_mode_model=True,
            subclass_mode_data=True,
            auto_configure_optimizers=False,
            seed_everything_default=0,
            save_config_kwargs={"overwrite": True},
            parser_class=_Parser,
            parser_kwargs={"prog": "lit-backdoor", "exit_on_error": run, **_USAGE},
            args=args,
        )

    def _parse_ckpt_path(self) -> None:
        """Check the checkpoint, and take no settings from it: they could name any class and have it built."""
        if self._run and self.config.get("subcommand"):
            _check_checkpoint(self.config[self.config.subcommand].get("ckpt_path"))

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add where the bundle goes."""
        parser.add_argument("--out", type=str | None, default=None, help="Folder of the bundle that the stage leaves.")
        parser.add_argument("--key", type=str | None, default=None, help="Key of the settings; given by a chain.")

    def before_instantiate_classes(self) -> None:
        """Load checkpoints as plain tensors only, whatever was asked."""
        self.config[self.subcommand]["weights_only"] = True

    def instantiate_classes(self) -> None:
        """Build stage, data module and Trainer."""
        if self._run:
            super().instantiate_classes()

    def _run_subcommand(self, subcommand: str) -> None:
        if not self._run:
            return
        if subcommand == "fit" and getattr(self.model, "verb", "fit") == "predict":
            raise ValueError(f"Expected predict for {type(self.model).__name__}, which trains nothing, got fit.")
        super()._run_subcommand(subcommand)

    def instantiate_trainer(self, **kwargs: Any) -> pl.Trainer:
        """Add the writer of the bundle to the Trainer's callbacks."""
        trainer = super().instantiate_trainer(**kwargs)
        config = self.config[self.subcommand]
        trainer.callbacks.append(BundleWriter(config["out"], config["key"]))  # type: ignore[attr-defined]
        return trainer


def _check_configs(arguments: Sequence[str]) -> None:
    """Refuse configuration files whose aliases would fill the memory, before the parser expands them."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    parser.add_argument("--config", action="append", nargs="?", default=[])
    for name in parser.parse_known_args([str(each) for each in arguments])[0].config:
        if name and Path(name).is_file():
            read_config("configs", Path(name))


def _nearest(message: str) -> list[str]:
    """Read out of jsonargparse's message which names are not known, and say which ones are."""
    found = []
    for path, text in re.findall(r"given class_path '([\w.]+)':\s*(.*)", message):
        option = re.search(r"unrecognized arguments: --([\w]+)|Option '([\w]+)'|Key '([\w]+)", text)
        module, _, name = path.rpartition(".")
        if module not in sys.modules:  # the parser could not import it either
            continue
        there = vars(sys.modules[module])
        if name not in there:
            found.append(unknown("class", name, [key for key, value in there.items() if inspect.isclass(value)]))
        elif option:
            wrong = next(filter(None, option.groups()))
            found.append(unknown(f"option of {name}", wrong, arguments_of(there[name]) - {wrong}))
    return [str(error) for error in found]


def _check_checkpoint(path: str | None) -> None:
    """Refuse a file that no Trainer wrote, which Lightning would stumble over; names as ``last`` it looks up itself."""
    if path is None or not Path(path).is_file():
        return
    content = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    stated = content.get("pytorch-lightning_version") if isinstance(content, dict) else None
    if not isinstance(stated, str) or not isinstance(content.get("state_dict"), dict):
        raise ValueError(
            f"Expected a checkpoint that a Trainer wrote at '{path}', got a file of another kind. For weights from "
            "elsewhere run the stage lit_backdoor.stages.ImportedSuspect."
        )


def with_bundle(arguments: list[str]) -> list[str]:
    """Replace ``--bundle DIR`` (or ``--bundle=DIR``) by the evaluation that fits the bundle's kind.

    Raises:
        ValueError: If it stands beside ``fit``, which a bundle is not for.
    """
    from lit_backdoor.stages import evaluation_of

    parser = argparse.ArgumentParser(prog="lit-backdoor", add_help=False, allow_abbrev=False)
    parser.add_argument("--bundle")
    given, rest = parser.parse_known_args(arguments)
    if given.bundle is None:
        return arguments
    if arguments[0] == "fit":
        raise ValueError(
            "Expected --bundle with test, validate or predict, got it with fit. To train on from a bundle, hand it to "
            "a stage, for example --model lit_backdoor.stages.FineTune --model.suspect DIR."
        )
    cls = type(evaluation_of(given.bundle))
    return [*rest, "--model", f"{cls.__module__}.{cls.__qualname__}", "--model.bundle", given.bundle]
