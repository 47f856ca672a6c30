"""LightningCLI for every stage: ``fit``, ``validate``, ``test``, ``predict``."""

from __future__ import annotations

import argparse
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI

from lit_backdoor.data import BackdoorDataModule
from lit_backdoor.stages import BundleWriter, Stage

__all__ = ["BackdoorCLI"]


class BackdoorCLI(LightningCLI):
    """Run one stage from the command line or a configuration file.

    Args:
        args: Command-line arguments, the subcommand first.
        run: Whether to run; without it the configuration is only parsed, into ``config``.
    """

    def __init__(self, args: list[str], run: bool = True) -> None:
        self._run = run
        super().__init__(
            Stage,
            BackdoorDataModule,
            subclass_mode_model=True,
            subclass_mode_data=True,
            auto_configure_optimizers=False,
            seed_everything_default=0,
            save_config_kwargs={"overwrite": True},
            parser_kwargs={"prog": "lit-backdoor"},
            args=args,
        )

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
        if self._run:
            super()._run_subcommand(subcommand)

    def instantiate_trainer(self, **kwargs: Any) -> pl.Trainer:
        """Add the writer of the bundle to the Trainer's callbacks."""
        trainer = super().instantiate_trainer(**kwargs)
        config = self.config[self.subcommand]
        trainer.callbacks.append(BundleWriter(config["out"], config["key"]))  # type: ignore[attr-defined]
        return trainer


def with_bundle(arguments: list[str]) -> list[str]:
    """Replace ``--bundle DIR`` (or ``--bundle=DIR``) by the evaluation that fits the bundle's kind."""
    from lit_backdoor.stages import evaluation_of

    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--bundle")
    given, rest = parser.parse_known_args(arguments)
    if given.bundle is None:
        return arguments
    cls = type(evaluation_of(given.bundle))
    return [*rest, "--model", f"{cls.__module__}.{cls.__qualname__}", "--model.bundle", given.bundle]
