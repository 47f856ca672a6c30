"""What a chain builds in its own process: stages and data to check them, and the test of a finished bundle."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from jsonargparse import ArgumentParser
from lightning.fabric.utilities.exceptions import MisconfigurationException

from lit_backdoor.bundle import Bundle
from lit_backdoor.chain.classes import load_class
from lit_backdoor.data import BackdoorDataModule
from lit_backdoor.data.sources import Source
from lit_backdoor.stages.base import Stage
from lit_backdoor.stages.rules import check_length, check_rates, check_settings
from lit_backdoor.stages.testing import TESTED, Evaluation

__all__ = ["WIRED", "build", "build_data", "check_stage", "kept_arguments", "test_bundle"]

_KEPT = ("accelerator", "precision")
_LATER = ("callbacks", "logger", "plugins", "profiler", "enable_checkpointing", "enable_model_summary")
_DEVICES = ("accelerator", "devices", "num_nodes", "strategy")
WIRED = "-"  # in the place of the path of an earlier stage's bundle


def build(described: Mapping[str, Any], kind: type = Source) -> Any:
    """Build an object from its ``class_path`` and ``init_args``, by the parser that ``fit`` uses."""
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--it", type=kind)
    return parser.instantiate(parser.parse_object({"it": dict(described)})).it


def build_data(described: Mapping[str, Any]) -> BackdoorDataModule:
    """Build a data module from its description."""
    return build(described, BackdoorDataModule)  # type: ignore[no-any-return]


def check_stage(
    name: str,
    config: Mapping[str, Any],
    data: BackdoorDataModule,
    verb: str = "fit",
    *,
    opened: set[str] | None = None,
    here: bool = True,
) -> None:
    """Build a stage and its Trainer, without running them, and compare its epochs with the Trainer's.

    Args:
        name: Its name in the chain.
        config: Its ``model``, ``data`` and ``trainer``.
        data: Its data module.
        verb: ``fit`` or ``predict``.
        opened: Descriptions of data that other stages opened already; they are not opened again.
        here: Whether this machine runs the stage, so that it must have the devices.

    Raises:
        OSError: If the data cannot be found.
        ValueError: If the data have fewer rows than the split asks for, a class refuses its arguments, a target is no
            class and no bundle, the Trainer has a setting that it or no stage can work with, or the stage cannot be run
            by the verb or needs other epochs.
    """
    trainer, stage = config["trainer"], build(config["model"], Stage)
    if trainer.get("fast_dev_run"):
        raise ValueError(
            f"Expected no fast_dev_run for stage '{name}', which would write no bundle. For a short chain set "
            "trainer.limit_train_batches=1, and for a mere check of it give --dry-run."
        )
    _check_verb(name, stage, verb)
    try:
        _check_trainer(trainer, here)
        _check_optimizers(config["model"])
        _open_data(data, config["data"], stage.views, set() if opened is None else opened)
    except (ValueError, TypeError, MisconfigurationException) as error:
        raise ValueError(f"Stage '{name}' of the chain: {error}") from error
    classes = _classes(data)
    _check_target(name, config["model"].get("init_args", {}).get("target"), classes)
    try:
        check_settings(trainer.get)
        if verb == "fit":
            check_length(trainer.get)
        if classes is not None:
            stage.check_classes(classes)
    except ValueError as error:
        raise ValueError(f"Stage '{name}' of the chain: {error}") from error
    if classes is not None and data.attack is not None:
        data.attack.check(classes)
    wanted, given = stage.planned_epochs, trainer.get("max_epochs")
    if wanted is not None and given not in (None, wanted):
        raise ValueError(
            f"Expected {wanted} epochs for stage '{name}', the sum of its phases over all rounds, got {given}. Set "
            f"stages.{name}.trainer.max_epochs={wanted}, leave it out, or change its rounds and epochs."
        )


def _check_trainer(trainer: Mapping[str, Any], here: bool) -> None:
    """Build a Trainer of the plain settings, which refuses what a run's would."""
    given = {key: value for key, value in trainer.items() if not isinstance(value, dict) and key not in _LATER}
    if not here:
        given = {key: value for key, value in given.items() if key not in _DEVICES}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pl.Trainer(**given, logger=False, enable_checkpointing=False, enable_model_summary=False)


def _check_optimizers(described: Any) -> None:
    """Build each optimizer that is named, over one number, and check its learning rate."""
    if isinstance(described, list):
        for item in described:
            _check_optimizers(item)
    elif isinstance(described, Mapping):
        cls = load_class(described["class_path"]) if "class_path" in described else None
        if isinstance(cls, type) and issubclass(cls, torch.optim.Optimizer):
            check_rates(cls([torch.nn.Parameter(torch.zeros(1))], **(described.get("init_args") or {})))
        for value in described.values():
            _check_optimizers(value)


def _open_data(data: BackdoorDataModule, described: Mapping[str, Any], views: Iterable[str], opened: set[str]) -> None:
    """Open the data and plan the split, once for stages that share them; selected rows are still to come.

    Data that a source fetches itself may not be here yet.
    """
    arguments = {key: value for key, value in described["init_args"].items() if key != "suspicious"}
    for view in views:
        key = json.dumps([view, arguments], sort_keys=True, default=str)
        if key in opened or view == "suspicious":
            continue
        try:
            data.get_view(view)
        except FileNotFoundError:
            if type(data.source).prepare is Source.prepare:
                raise
        opened.add(key)


def _check_verb(name: str, stage: Stage, verb: str) -> None:
    """Check that a stage is run as it is meant to be, and produces a bundle."""
    kind = type(stage).__name__
    if stage.kind is None:
        raise ValueError(
            f"Expected stage '{name}' to produce a bundle, got {kind}, which produces none. Remove it: bundles of "
            "other stages are tested without it."
        )
    if verb == "fit" and stage.verb == "predict":
        raise ValueError(f"Expected stages.{name}.run=predict, since {kind} trains nothing.")
    if verb == "predict" and stage.verb == "fit":
        raise ValueError(f"Expected stages.{name}.run=fit, since {kind} is trained.")


def _classes(data: BackdoorDataModule) -> int | None:
    """Count the data's classes; None where the data are not here yet."""
    try:
        return data.num_classes
    except (OSError, ValueError):
        return None


def _check_target(name: str, target: Any, classes: int | None) -> None:
    """Check the class that a stage was given by hand; `WIRED` stands for a stage's bundle that is still to come."""
    wire = f"a class number, or another stage's finding: --set stages.{name}.inputs.model.target=STAGE"
    if isinstance(target, str) and target != WIRED and not (Path(target) / "bundle.json").is_file():
        raise ValueError(f"Expected the target of stage '{name}' to be {wire}; got '{target}'.")
    if isinstance(target, int) and classes is not None and not 0 <= target < classes:
        raise ValueError(f"Expected the target of stage '{name}' to be {wire}; got {target} of {classes} classes.")


def kept_arguments(trainer: Mapping[str, Any]) -> dict[str, Any]:
    """Give those of a chain's Trainer arguments that its tests share."""
    return {key: trainer[key] for key in _KEPT if key in trainer}


def test_bundle(bundle: Bundle, data: BackdoorDataModule, trainer: Mapping[str, Any], work: Path) -> dict[str, Any]:
    """Run the test that fits a bundle's kind.

    Args:
        bundle: What to test; a kind without a test gives no numbers.
        data: The data module.
        trainer: The chain's Trainer arguments, of which accelerator and precision are kept.
        work: Folder for the Trainer.

    Returns:
        The metrics by name, without ``test/``.
    """
    if bundle.kind not in TESTED:
        return {}
    tester = pl.Trainer(
        **kept_arguments(trainer),
        devices=1,
        logger=False,
        enable_checkpointing=False,
        enable_model_summary=False,
        enable_progress_bar=False,
        default_root_dir=work,
    )
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*does not have many workers.*")
        tester.test(Evaluation(str(bundle.path)), datamodule=data, verbose=False)
    return {name.removeprefix("test/"): float(value) for name, value in tester.callback_metrics.items()}
