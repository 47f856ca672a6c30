"""LightningCLI for every stage: ``fit``, ``validate``, ``test``, ``predict``."""

from __future__ import annotations

import argparse
import inspect
import re
import sys
import zipfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn, Union, get_args, get_origin

import lightning.pytorch as pl
import torch
from jsonargparse import Namespace
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI

from lit_backdoor.bundle import open_bundle
from lit_backdoor.data import BackdoorDataModule
from lit_backdoor.data.attack_given import alike, attack_given, attack_of
from lit_backdoor.errors import check_devices, unknown
from lit_backdoor.presets import read_config
from lit_backdoor.recipe import arguments_of, rebuild, trusting
from lit_backdoor.refusals import one_line
from lit_backdoor.stages import BundleWriter, Stage
from lit_backdoor.stages.checkpoint import check_parts
from lit_backdoor.stages.requeue import Requeue
from lit_backdoor.stages.stopping import StopAtBatch
from lit_backdoor.stages.testing import TESTED

__all__ = ["BackdoorCLI"]


def take_attack(config: Any) -> None:
    """Let the data be triggered by the attack that the suspect's bundle carries, where none or the same is given.

    A trigger that was trained is in the bundle only: its description would build it untrained.

    Args:
        config: Settings of one command, with ``model`` and ``data``; ``data.init_args.attack`` is set in place.
    """
    given, data = config.model.get("init_args") or {}, config.data.get("init_args")
    path = next((given[name] for name in ("suspect", "bundle") if isinstance(given.get(name), str)), None)
    if data is None or "attack" not in data or path is None or not (Path(path) / "bundle.json").is_file():
        return
    bundle = open_bundle(path)
    if bundle.info["attack"] is None:
        return
    stated = data["attack"]
    if isinstance(stated, Namespace):
        stated = rebuild(stated.as_dict(), trust=None)  # the user wrote it
    attack = attack_given(stated)
    if attack is None or alike(attack, attack_of(bundle)):
        data["attack"] = str(path)


class _Parser(LightningArgumentParser):
    """Says in one line what is wrong, with the nearest known name where a class or an option is not known."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Print the message and leave with exit code 2."""
        text = " ".join(_nearest(message)) or one_line(message)
        if not self.exit_on_error:
            super().error(text, ex)
        sys.stderr.write(f"lit-backdoor: {text} (--help says more)\n")
        sys.exit(2)

    def add_lightning_class_args(self, *args: Any, **kwargs: Any) -> list[str]:
        """Add the arguments of a class; where whole and other numbers are taken, a whole one stays whole."""
        added = super().add_lightning_class_args(*args, **kwargs)
        for action in self._actions:
            if get_origin(kinds := getattr(action, "_typehint", None)) is Union:
                # Python keeps one order for all unions of the same types, and whoever was imported first has made it
                ordered = tuple(sorted(get_args(kinds), key=lambda kind: kind is float))
                action._typehint = Union[ordered]  # type: ignore[attr-defined]  # noqa: UP007
        return added


class BackdoorCLI(LightningCLI):
    """Run one stage from the command line or a configuration file.

    Args:
        args: Command-line arguments, the subcommand first.
        run: Whether to run; without it the configuration is only parsed, into ``config``, and what is wrong with it is
            an ``ArgumentError`` instead of exit code 2.
    """

    def __init__(self, args: list[str], run: bool = True) -> None:
        self._run, self._verb = run, args[0]
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
            parser_kwargs={"prog": "lit-backdoor", "exit_on_error": run, "allow_abbrev": False}
            | {self._verb: _usage(self._verb)},
            args=args,
        )

    def subcommands(self) -> dict[str, set[str]]:  # type: ignore[override]  # static there
        """Give the one that is run: a parser of another takes as long to make, and a chain makes one per stage."""
        return {self._verb: LightningCLI.subcommands()[self._verb]}

    def _parse_ckpt_path(self) -> None:
        """Check the checkpoint, and take no settings from it: they could name any class and have it built."""
        if self._run and self.config.get("subcommand"):
            _check_checkpoint(self.config[self.config.subcommand].get("ckpt_path"))

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add where the bundle goes."""
        parser.add_argument("--out", type=str | None, default=None, help="Folder of the bundle that the stage writes.")
        parser.add_argument("--key", type=str | None, default=None, help="Key of the settings; given by a chain.")
        parser.add_argument("--trust", type=list[str] | str, default=[], help="Packages that bundles may name.")

    def before_instantiate_classes(self) -> None:
        """Load checkpoints as plain tensors only, whatever was asked; take the attack from the suspect's bundle."""
        config = self.config[self.subcommand]
        check_devices(config["trainer"]["devices"])
        config["weights_only"] = True
        take_attack(config)

    def instantiate_classes(self) -> None:
        """Build stage, data module and Trainer."""
        if self._run:
            super().instantiate_classes()

    def _run_subcommand(self, subcommand: str) -> None:
        if not self._run:
            return
        if subcommand == "fit" and getattr(self.model, "verb", "fit") == "predict":
            raise ValueError(f"Expected predict for {type(self.model).__name__}, which trains nothing, got fit.")
        trust = self.config[subcommand]["trust"]
        with trusting([trust] if isinstance(trust, str) else trust):
            super()._run_subcommand(subcommand)
        config = self.config[subcommand]
        if subcommand in ("fit", "predict") and config["key"] is None and self.trainer.is_global_zero:
            _say_result(self.trainer, config["out"])

    def start(self, settings: Mapping[str, Any], prepare: Callable[[BackdoorDataModule], object]) -> None:
        """Run a configuration that was parsed before, and with ``run=False``.

        Args:
            settings: Values that were not known then, by their path, such as ``model.init_args.suspect``.
            prepare: Called with the data module before the run.
        """
        self._run = True
        for path, value in settings.items():
            self.config[f"{self.subcommand}.{path}"] = value
        self._parse_ckpt_path()
        self._set_seed()
        self.before_instantiate_classes()
        self.instantiate_classes()
        prepare(self.datamodule)
        self._run_subcommand(str(self.subcommand))

    def instantiate_trainer(self, **kwargs: Any) -> pl.Trainer:
        """Add the writer of the bundle, and what stops at a signal, to the Trainer's callbacks."""
        trainer = super().instantiate_trainer(**kwargs)
        config = self.config[self.subcommand]
        added = [StopAtBatch(), Requeue(), BundleWriter(config["out"], config["key"])]
        trainer.callbacks.extend(added)  # type: ignore[attr-defined]
        return trainer


def _usage(verb: str) -> dict[str, str]:
    """Give the usage that is printed with an error: a list of all options would push the error off the screen."""
    return {
        "usage": f"lit-backdoor {verb} [--config FILE] [--trainer.… --model.… --data.…]",
        "epilog": "Stages for --model: lit-backdoor list stages, lit-backdoor list defenses. Arguments of one: "
        f"lit-backdoor {verb} --model.help CLASS_PATH",
    }


def _check_configs(arguments: Sequence[str]) -> None:
    """Refuse configuration files whose aliases would fill the memory, before the parser expands them."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    parser.add_argument("--config", action="append", nargs="?", default=[])
    for name in parser.parse_known_args([str(each) for each in arguments])[0].config:
        if name and Path(name).is_file():
            read_config("configs", Path(name))


def _say_result(trainer: pl.Trainer, out: str | None) -> None:
    """Print what was measured last, and where the bundle is."""
    path = Path(out or Path(trainer.default_root_dir) / "bundle")
    if not (path / "bundle.json").is_file():  # a trial run
        return
    numbers = trainer.callback_metrics
    measured = [
        f"{name.upper()} {float(numbers[f'val/{name}']):.3f}" for name in ("acc", "asr") if f"val/{name}" in numbers
    ]
    how = "" if measured else f"  (to measure it: lit-backdoor test --bundle {path} …)"
    sys.stdout.write(f"{'  '.join([*measured, f'bundle {path}'])}{how}\n")


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
    try:
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except (LookupError, TypeError, AttributeError) as error:  # what torch's reader raises on bytes that are no pickle
        raise ValueError(f"Expected a checkpoint that a Trainer wrote at '{path}', got no pickle ({error}).") from error
    stated = content.get("pytorch-lightning_version") if isinstance(content, dict) else None
    if not isinstance(stated, str) or not isinstance(content.get("state_dict"), dict):
        raise ValueError(
            f"Expected a checkpoint that a Trainer wrote at '{path}', got a file of another kind. For weights from "
            "elsewhere run the stage lit_backdoor.stages.ImportedSuspect."
        )
    if isinstance(content.get("lit_backdoor"), dict):  # others are refused by the stage, which names itself
        check_parts(content)


def with_bundle(arguments: list[str]) -> list[str]:
    """Replace ``--bundle DIR`` (or ``--bundle=DIR``) by the evaluation that fits the bundle's kind.

    Raises:
        ValueError: If it is given with ``fit``, which takes no bundle.
    """
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
    if arguments[0] == "predict" and open_bundle(given.bundle, TESTED).kind == "detector":
        return [*rest, "--model", "lit_backdoor.stages.InputDetection", "--model.purified", given.bundle]
    return [*rest, "--model", "lit_backdoor.stages.Evaluation", "--model.bundle", given.bundle]
