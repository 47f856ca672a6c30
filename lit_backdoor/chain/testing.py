"""What a chain builds in its own process: stages and data to check them, and the test of a finished bundle."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
from jsonargparse import ArgumentParser

from lit_backdoor.bundle import Bundle
from lit_backdoor.data import BackdoorDataModule
from lit_backdoor.data.sources import Source
from lit_backdoor.stages.base import Stage
from lit_backdoor.stages.rules import check_length, check_settings
from lit_backdoor.stages.testing import TESTED, Evaluation

__all__ = ["WIRED", "build", "build_data", "check_stage", "kept_arguments", "test_bundle"]

_KEPT = ("accelerator", "precision")
WIRED = "-"  # in the place of the path of an earlier stage's bundle


def build(described: Mapping[str, Any], kind: type = Source) -> Any:
    """Build an object from its ``class_path`` and ``init_args``, by the parser that ``fit`` uses."""
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--it", type=kind)
    return parser.instantiate(parser.parse_object({"it": dict(described)})).it


def build_data(described: Mapping[str, Any]) -> BackdoorDataModule:
    """Build a data module from its description."""
    return build(described, BackdoorDataModule)  # type: ignore[no-any-return]


def check_stage(name: str, config: Mapping[str, Any], data: BackdoorDataModule, verb: str = "fit") -> None:
    """Build a stage without running it, and compare its epochs with the Trainer's.

    Args:
        name: Its name in the chain.
        config: Its ``model``, ``data`` and ``trainer``.
        data: Its data module.
        verb: ``fit`` or ``predict``.

    Raises:
        ValueError: If a class refuses its arguments, a target is no class and no bundle, the Trainer has a setting that
            no stage can work with, or the stage cannot be run by the verb or needs other epochs.
    """
    trainer, stage = config["trainer"], build(config["model"], Stage)
    if trainer.get("fast_dev_run"):
        raise ValueError(
            f"Expected no fast_dev_run for stage '{name}', which would leave no bundle. For a short chain set "
            "trainer.limit_train_batches=1, and for a mere check of it give --dry-run."
        )
    _check_verb(name, stage, verb)
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


def _check_verb(name: str, stage: Stage, verb: str) -> None:
    """Check that a stage is run as it is meant to be, and leaves something."""
    kind = type(stage).__name__
    if stage.kind is None:
        raise ValueError(
            f"Expected stage '{name}' to leave a bundle, got {kind}, which leaves none. Take it out: what other stages "
            "leave is tested without it."
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
