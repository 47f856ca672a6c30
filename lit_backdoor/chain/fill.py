"""What a composed chain takes from its data: classes and image sizes of nets, epochs of lengths given in steps."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from lit_backdoor.chain.classes import check_classes, load_class, plain_kind
from lit_backdoor.chain.compose import stage_config
from lit_backdoor.chain.launch import count_processes
from lit_backdoor.chain.names import copied, merge, section
from lit_backdoor.chain.testing import WIRED, build, build_data
from lit_backdoor.models import Classifier
from lit_backdoor.recipe import arguments_of
from lit_backdoor.stages import Stage

__all__ = ["check", "fill_in"]

_ROWS = {"root": "root", "train": "train", "questioned": "train", "attacker": "train"}  # views, by their count
_LOADING = ("batch_size", "eval_batch_size", "augment", "num_workers", "suspicious", "view")  # changes no count


class _Length(NamedTuple):
    """A number of epochs among a model's arguments that was given in steps."""

    arguments: dict[str, Any]
    name: str
    steps: int


def fill_in(chain: Mapping[str, Any]) -> dict[str, Any]:
    """Check the classes of a composed chain and fill in what its data and its plan determine.

    Lengths in steps become epochs: ``steps`` of a stage its ``max_epochs``, at least ``passes`` of them; ``steps`` and
    ``…_steps`` among a model's arguments those that are in epochs. A batch size below 1 is a share of the root set.

    Returns:
        The chain as it runs: every length in epochs, every net with its classes and image size.

    Raises:
        ValueError: If a class or an argument is not known, or a value contradicts the data; says what to set.
        OSError: If lengths are given in steps and the data are not there.
    """
    chain, lengths, shares = _checked(chain)
    data = _Data(chain)
    for name, stage in chain["stages"].items():
        _fill_nets(stage["model"], f"stages.{name}.model", data.classes(name), data.size(name))
        if name in shares:
            batch = max(1, round(shares[name] * data.rows(name)["root"]))
            stage["data"] = merge(section(stage, "data"), {"init_args": {"batch_size": batch}})
        _fill_epochs(chain, name, lengths[name], data)
    return chain


def check(chain: Mapping[str, Any]) -> None:
    """Check the classes of a composed chain and their arguments, without its data.

    Raises:
        ValueError: At the first that is not known, or a need that is not met.
    """
    _checked(chain)


def _checked(chain: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, list[_Length]], dict[str, float]]:
    """Give a chain whose arguments are all its classes', and the lengths and batch sizes that wait for the data."""
    own: dict[str, Any] = copied(chain)
    lengths = {}
    for name, stage in own["stages"].items():
        _take_defaults(stage)
        lengths[name] = list(_in_epochs(load_class(stage["model"]["class_path"]), stage["model"]["init_args"]))
    shares = {name: share for name in own["stages"] if (share := _take_share(own, name))}
    check_classes(own)
    return own, lengths, shares


def _take_defaults(stage: dict[str, Any]) -> None:
    """Give a model the arguments that the setup has for a victim, as far as the attack's stage takes them."""
    taken = arguments_of(load_class(stage["model"]["class_path"]))
    kept = {key: value for key, value in (stage.pop("defaults", None) or {}).items() if key in taken}
    stage["model"]["init_args"] = merge(kept, section(stage["model"], "init_args"))


def _in_epochs(cls: Any, arguments: dict[str, Any]) -> Iterator[_Length]:
    """Rename arguments in steps as those in epochs, whose value is still to come."""
    names = arguments_of(cls)
    for key, value in list(arguments.items()):
        if isinstance(value, dict):
            inner = load_class(value["class_path"]) if "class_path" in value else plain_kind(cls, key)
            if inner is not None:
                yield from _in_epochs(inner, value.setdefault("init_args", {}) if "class_path" in value else value)
        if key in names or not f"_{key}".endswith("_steps"):
            continue
        stem = key.removesuffix("steps")
        name = next((other for other in (f"{stem}epochs", stem.removesuffix("_")) if other in names), None)
        if name is not None and value is None:  # a variant says epochs instead
            del arguments[key]
        elif name is not None:
            if isinstance(value, bool) or not isinstance(value, int) or value < 0:
                raise ValueError(f"Expected '{key}' of {cls.__name__} to be a whole number of steps, got {value!r}.")
            if name in arguments:
                raise ValueError(f"Expected '{key}' or '{name}' of {cls.__name__}, got both. Set {key} to null.")
            del arguments[key]
            arguments[name] = 1
            yield _Length(arguments, name, value)


def _take_share(chain: dict[str, Any], name: str) -> float | None:
    """Take a batch size that is a share of the root set, until its rows are known."""
    stage = chain["stages"][name]
    size = section(merge(chain["data"], section(stage, "data")), "init_args").get("batch_size", 1)
    if type(size) is int and size > 0:
        return None
    if type(size) is not float or not 0 < size < 1:
        raise ValueError(f"Expected batch_size of stage '{name}' to be rows, or a share of the root set, got {size!r}.")
    stage["data"] = merge(section(stage, "data"), {"init_args": {"batch_size": 1}})
    return size


class _Data:
    """The data of a chain's stages, opened where something about them is asked, once for each description."""

    def __init__(self, chain: Mapping[str, Any]) -> None:
        self._chain = chain
        self._opened: dict[str, Any] = {}

    def classes(self, name: str) -> int | None:
        """Count the classes; None where the data are not here yet."""
        try:
            return int(self._open(name).num_classes)
        except (OSError, ValueError):
            return None

    def size(self, name: str) -> int | None:
        """Give the images' side in pixels; None where they are no squares, or not here yet."""
        try:
            height, width = self._open(name).image_size
        except (OSError, ValueError):
            return None
        return int(height) if height == width else None

    def rows(self, name: str) -> dict[str, int]:
        """Count the rows of the views."""
        data = self._open(name)
        data.prepare_data()
        return dict(data.counts)

    def _open(self, name: str) -> Any:
        described = stage_config(self._chain, name)["data"]
        arguments = {key: value for key, value in described["init_args"].items() if key not in _LOADING}
        key = json.dumps({**described, "init_args": arguments}, sort_keys=True, default=str)
        if key not in self._opened:
            self._opened[key] = build_data({**described, "init_args": arguments})
        return self._opened[key]


def _fill_nets(node: Any, path: str, classes: int | None, size: int | None) -> None:
    """Give every classifier below a node, and a stage that asks for them, the data's classes and image size.

    Raises:
        ValueError: If it was given others.
    """
    if isinstance(node, dict) and "class_path" in node:
        cls = load_class(node["class_path"])
        if isinstance(cls, type) and issubclass(cls, Classifier | Stage):
            arguments = node.setdefault("init_args", {})
            for key, value, what in (("num_classes", classes, "classes"), ("input_size", size, "pixels a side")):
                if value is None or key not in arguments_of(cls):
                    continue
                if arguments.setdefault(key, value) != value:
                    raise ValueError(
                        f"Expected the net at {path} to be for the data's {value} {what}, got one for "
                        f"{arguments[key]}. Set {path}.init_args.{key}={value}, or take it out: the data say it."
                    )
    for key, value in node.items() if isinstance(node, dict) else ():
        _fill_nets(value, f"{path}.{key}", classes, size)


def _fill_epochs(chain: dict[str, Any], name: str, lengths: list[_Length], data: _Data) -> None:
    """Turn a stage's lengths into epochs, and let its plan say how many there are."""
    stage = chain["stages"][name]
    steps, passes = stage.pop("steps", None), stage.pop("passes", None)
    trainer = stage["trainer"] = dict(section(stage, "trainer"))
    if steps is not None or lengths:
        each = _steps_of_an_epoch(chain, name, data)
        for length in lengths:
            length.arguments[length.name] = length.steps and max(1, round(length.steps / each))
        if steps is not None:
            trainer["max_epochs"] = max(passes or 1, round(steps / each))
    elif passes is not None:
        trainer.setdefault("max_epochs", passes)
    cls = load_class(stage["model"]["class_path"])  # what is no stage is refused when the chain is checked
    planned = getattr(cls, "planned_epochs", Stage.planned_epochs) is not Stage.planned_epochs
    if planned and trainer.get("max_epochs") is None and "max_epochs" not in section(chain, "trainer"):
        model = copied(stage["model"])
        for argument in section(stage, "inputs"):
            if argument.startswith("model."):
                model["init_args"][argument.removeprefix("model.")] = WIRED
        trainer["max_epochs"] = build(model, Stage).planned_epochs


def _steps_of_an_epoch(chain: Mapping[str, Any], name: str, data: _Data) -> int:
    """Count the optimizer steps of one epoch, as the data's loaders and the Trainer have it."""
    config = stage_config(chain, name)
    trainer, counts = config["trainer"], data.rows(name)
    views = getattr(load_class(config["model"]["class_path"]), "views", ())
    rows = max([counts[_ROWS[view]] for view in views if view in _ROWS] or [counts["root"]])
    batch = config["data"]["init_args"].get("batch_size", 128) * count_processes(trainer)
    batches: int = max(1, rows // max(1, batch))
    limit, gathered = trainer.get("limit_train_batches"), trainer.get("accumulate_grad_batches")
    if limit is not None:
        if not (type(limit) is int and limit >= 0) and not (type(limit) is float and 0 <= limit <= 1):
            raise ValueError(
                f"Expected limit_train_batches of stage '{name}' to be a number of batches or a share of them, got "
                f"{limit!r}."
            )
        batches = max(1, int(batches * limit) if isinstance(limit, float) else min(batches, limit))
    if gathered is not None and (type(gathered) is not int or gathered < 1):
        raise ValueError(
            f"Expected accumulate_grad_batches of stage '{name}' to be a whole number from 1, got {gathered!r}."
        )
    return math.ceil(batches / (gathered or 1))
