"""What a checkpoint may hold that is resumed: what our stages write, in plain types, as this run has it.

Lightning takes much of a checkpoint at its word; paths in it, for example, are files that it removes later. So whatever
comes from a file is compared with what this run would have written itself, and paths are never taken.
"""

from __future__ import annotations

import copy
import math
from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor
from torch.optim import Optimizer

__all__ = ["batches_into_epoch", "check_optimizers", "check_parts", "check_resumed"]

_PARTS = {
    "epoch": int,
    "global_step": int,
    "pytorch-lightning_version": str,
    "state_dict": dict,
    "loops": dict,
    "callbacks": dict,
    "optimizer_states": list,
    "lr_schedulers": list,
    "lit_backdoor": dict,
    "MixedPrecision": dict,
}
_NEEDED = ("epoch", "global_step", "pytorch-lightning_version", "state_dict", "loops", "lit_backdoor")
_DEEPEST = 50


def check_parts(checkpoint: Mapping[str, Any]) -> None:
    """Check names and types of a checkpoint's parts; nothing of this run is needed.

    Raises:
        ValueError: If a part is missing, not known or of another type, or a count is negative.
    """
    for name in _NEEDED:
        if name not in checkpoint:
            raise _refused(name, "to be there", "none")
    for name, value in checkpoint.items():
        if name not in _PARTS:
            raise ValueError(
                f"Expected a checkpoint with nothing beside {', '.join(_PARTS)}, got '{name}'. A stage of your own "
                "keeps what it needs under checkpoint['lit_backdoor']."
            )
        if type(value) is not _PARTS[name] and not (_PARTS[name] is dict and isinstance(value, dict)):
            raise _refused(name, f"of type {_PARTS[name].__name__}", type(value).__name__)
        _check_plain(value, name)
    for name in ("epoch", "global_step"):
        if checkpoint[name] < 0:
            raise _refused(name, "not to be negative", checkpoint[name])
    for name, value in checkpoint["state_dict"].items():
        if not isinstance(name, str) or not isinstance(value, Tensor | dict):  # a metric's extra state is a dict
            raise _refused("state_dict", "to hold tensors by name", f"{type(value).__name__} as {name!r}")


def check_resumed(checkpoint: dict[str, Any], trainer: pl.Trainer, module: pl.LightningModule) -> None:
    """Check a checkpoint against the run that it is to resume, and take out of it what the run does not have.

    States of callbacks that are not configured go, and those of ModelCheckpoint: they are paths.

    Raises:
        ValueError: If a part differs in form from this run's own, a weight is not finite, or a fit is to be resumed in
            the middle of an epoch, which no stage could do exactly.
    """
    check_parts(checkpoint)
    loops = {name: getattr(trainer, name).state_dict() for name in _LOOPS}
    for loop in checkpoint["loops"].values():  # our loaders have no state of their own
        if isinstance(loop, dict) and isinstance(loop.get("state_dict"), dict):
            loop["state_dict"].pop("combined_loader", None)
    _check_alike(checkpoint["loops"], loops, "loops")
    _check_weights(checkpoint["state_dict"], module)
    if trainer.state.fn == TrainerFn.FITTING:
        _check_epoch_s_end(checkpoint)
        for name in ("callbacks", "optimizer_states", "lr_schedulers"):
            if name not in checkpoint:
                raise _refused(name, "to be there, since a fit is to be resumed", "weights only")
    checkpoint["callbacks"] = _configured(checkpoint.get("callbacks", {}), trainer)
    plugin = trainer.precision_plugin
    if type(plugin).__qualname__ == "MixedPrecision" and "MixedPrecision" in checkpoint:
        _check_alike(checkpoint["MixedPrecision"], plugin.state_dict(), "MixedPrecision")


_LOOPS = ("fit_loop", "validate_loop", "test_loop", "predict_loop")


def check_optimizers(checkpoint: Mapping[str, Any], trainer: pl.Trainer) -> None:
    """Check the states of optimizers and schedulers against this run's, before Lightning loads them.

    Raises:
        ValueError: If there are others, or one differs in form.
    """
    states, schedules = checkpoint["optimizer_states"], checkpoint["lr_schedulers"]
    schedulers = [config.scheduler for config in trainer.lr_scheduler_configs]
    for name, given, own in (
        ("optimizer_states", states, trainer.optimizers),
        ("lr_schedulers", schedules, schedulers),
    ):
        if len(given) != len(own):
            raise _refused(name, f"to be {len(own)}, as in this run", len(given))
    for number, (state, optimizer) in enumerate(zip(states, trainer.optimizers, strict=True)):
        _check_optimizer(state, optimizer, f"optimizer_states[{number}]")
    for number, (state, scheduler) in enumerate(zip(schedules, schedulers, strict=True)):
        _check_alike(state, scheduler.state_dict(), f"lr_schedulers[{number}]")


def _check_epoch_s_end(checkpoint: Mapping[str, Any]) -> None:
    if done := batches_into_epoch(checkpoint):
        raise ValueError(
            f"Expected a checkpoint of an epoch's end, got one from the middle of epoch {checkpoint['epoch']}, after "
            f"{done} batches: the rest of the epoch could not be repeated exactly. Give --ckpt_path one of an epoch's "
            "end; ModelCheckpoint writes them without every_n_train_steps and train_time_interval."
        )


def batches_into_epoch(checkpoint: Mapping[str, Any]) -> int:
    """Count the batches of an unfinished epoch that a fit's checkpoint comes after; 0 at the end of one."""
    progress = checkpoint["loops"]["fit_loop"]["epoch_loop.batch_progress"]
    return 0 if progress["is_last_batch"] else int(progress["current"]["ready"])


def _configured(states: Mapping[str, Any], trainer: pl.Trainer) -> dict[str, Any]:
    """Keep the states of this run's callbacks."""
    kept = {}
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        key = callback.state_key
        if key not in states or isinstance(callback, Checkpoint):
            continue
        if type(callback).__module__.startswith("lightning."):
            _check_alike(states[key], callback.state_dict(), f"callbacks[{key!r}]")
        elif not isinstance(states[key], dict):
            raise _refused(f"callbacks[{key!r}]", "of type dict", type(states[key]).__name__)
        kept[key] = states[key]
    return kept


def _check_weights(state: Mapping[str, Any], module: pl.LightningModule) -> None:
    own = module.state_dict()
    learned = {name for name, _ in module.named_parameters()}
    for name, value in state.items():
        if not isinstance(value, Tensor) or not isinstance(own.get(name), Tensor):
            continue  # what is missing or too much, torch names itself
        if _kind_of(value) != _kind_of(own[name]):
            raise _refused(f"state_dict['{name}']", f"of type {own[name].dtype}", value.dtype)
        if name in learned and not value.isfinite().all():
            raise _refused(f"state_dict['{name}']", "to be finite", "NaN or infinity")


def _kind_of(tensor: Tensor) -> str:
    """Say what sort of numbers a tensor holds; floats of any width may be loaded for one another."""
    if tensor.is_sparse or tensor.is_quantized or tensor.is_meta:
        return "special"
    return "float" if tensor.is_floating_point() else str(tensor.dtype)


def _check_optimizer(state: Any, optimizer: Optimizer, where: str) -> None:
    own = optimizer.state_dict()
    if not isinstance(state, dict) or set(state) != {"state", "param_groups"}:
        raise _refused(where, "to hold 'state' and 'param_groups'", _shown(state))
    _check_alike(state["param_groups"], own["param_groups"], f"{where}['param_groups']")
    groups = [group for group in optimizer.param_groups for _ in group["params"]]
    weights = [weight for group in optimizer.param_groups for weight in group["params"]]
    if not isinstance(state["state"], dict):
        raise _refused(f"{where}['state']", "of type dict", type(state["state"]).__name__)
    wanted: dict[Any, Any] = {}
    for number, values in state["state"].items():
        if number not in range(len(weights)) or not isinstance(values, dict):
            raise _refused(f"{where}['state']", f"a dict for each of {len(weights)} parameters", f"{number!r}")
        alike = (id(groups[number]), weights[number].shape, weights[number].dtype)
        if alike not in wanted:
            wanted[alike] = _state_of(optimizer, groups[number], weights[number])
        if wanted[alike] is not None:
            _check_alike(values, wanted[alike], f"{where}['state'][{number}]")


def _state_of(optimizer: Optimizer, group: Mapping[str, Any], weight: Tensor) -> Any:
    """Give what an optimizer keeps of a parameter after a step; None if it makes no step of one parameter alone."""
    trial = copy.copy(optimizer)
    parameter = torch.nn.Parameter(torch.ones_like(weight))
    parameter.grad = torch.ones_like(weight)
    trial.state, trial.param_groups = defaultdict(dict), [{**group, "params": [parameter]}]
    try:
        type(optimizer).step(trial)
    except Exception:  # one of the user's own, which needs more than this
        return None
    return dict(trial.state[parameter])


def _check_plain(value: Any, where: str, depth: int = 0) -> None:
    """Check that a value is made of tensors, numbers, texts, lists, tuples and dicts only."""
    if depth > _DEEPEST:
        raise _refused(where, f"at most {_DEEPEST} levels deep", "more")
    items: Iterable[Any]
    if isinstance(value, dict):
        if not all(isinstance(key, str | int) for key in value):
            raise _refused(where, "with texts and whole numbers as keys", "others")
        items = value.values()
    elif isinstance(value, list | tuple):
        items = value
    elif value is None or isinstance(value, Tensor) or type(value) in (bool, int, float, str):
        return
    else:
        raise _refused(where, "to hold tensors and plain values only", type(value).__name__)
    for item in items:
        _check_plain(item, where, depth + 1)


def _check_alike(given: Any, own: Any, where: str) -> None:
    """Check that a value has the form of this run's own: keys, lengths, kinds of numbers; none negative or not finite.

    A negative or infinite number is taken where this run's own is one too.
    """
    if isinstance(own, dict):
        if not isinstance(given, dict) or set(given) != set(own):
            got = sorted(map(str, set(given) ^ set(own)))[:3] if isinstance(given, dict) else type(given).__name__
            raise _refused(where, f"with the keys of this run ({', '.join(map(str, own)) or 'none'})", got)
        for key, value in own.items():
            _check_alike(given[key], value, f"{where}[{key!r}]")
    elif isinstance(own, list | tuple):
        if not isinstance(given, list | tuple) or len(given) != len(own):
            raise _refused(where, f"{len(own)} values", _shown(given))
        for number, value in enumerate(own):
            _check_alike(given[number], value, f"{where}[{number}]")
    elif isinstance(own, Tensor):
        if not isinstance(given, Tensor) or given.shape != own.shape or _kind_of(given) != _kind_of(own):
            raise _refused(where, f"a tensor of shape {tuple(own.shape)}", _shown(given))
    elif isinstance(own, bool) or isinstance(given, bool):
        if not isinstance(given, bool | None) or not isinstance(own, bool | None):
            raise _refused(where, f"of type {type(own).__name__}", _shown(given))
    elif isinstance(own, int | float):
        number = isinstance(given, int | float)
        if not number or (given < 0 <= own) or (math.isfinite(own) and not math.isfinite(given)):
            raise _refused(where, "a number that is finite and not negative", _shown(given))
    elif own is not None and type(given) is not type(own):
        raise _refused(where, f"of type {type(own).__name__}", _shown(given))


def _shown(value: Any) -> str:
    if isinstance(value, Tensor):
        return f"a tensor of shape {tuple(value.shape)}"
    return repr(value)[:60]


def _refused(where: str, expected: str, got: Any) -> ValueError:
    return ValueError(
        f"The checkpoint was refused: expected its {where} {expected}, got {got}. Give --ckpt_path a checkpoint that "
        "this stage wrote, with the same optimizer and schedule."
    )
