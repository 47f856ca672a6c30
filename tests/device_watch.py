"""What a step must not do if a GPU is not to wait: read a number from the device, or make a tensor elsewhere."""

import sys
from collections import Counter
from contextlib import contextmanager
from pathlib import Path
from unittest.mock import patch

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

import lit_backdoor
from lit_backdoor.data import BackdoorDataModule

ROOT = Path(lit_backdoor.__file__).parent

READS = {"item", "tolist", "__bool__", "__float__", "__int__", "__index__", "cpu", "numpy", "__array__", "nonzero",
         "masked_select", "equal", "allclose", "unique", "argwhere", "multinomial"}  # fmt: skip
FACTORIES = {"tensor", "as_tensor", "zeros", "ones", "full", "empty", "arange", "linspace", "eye", "rand", "randn",
             "randint", "randperm", "from_numpy", "tril_indices", "triu_indices"}  # fmt: skip


class _Watch(TorchFunctionMode):
    def __init__(self, seen):
        super().__init__()
        self.seen = seen

    def __torch_function__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        what = _fault(getattr(function, "__name__", ""), args, kwargs)
        if what and (place := _place()):
            self.seen[f"{place}: {what}"] += 1
        return function(*args, **kwargs)


def _fault(name, args, kwargs):
    if name in READS:
        return f"{name} reads from the device"
    if name in FACTORIES and kwargs.get("device") is None:
        return f"{name} without a device"
    if name == "where" and len(args) == 1:
        return "where reads from the device"
    if name == "__getitem__" and isinstance(args[0], Tensor):
        keys = args[1] if isinstance(args[1], tuple) else (args[1],)
        if any(isinstance(key, Tensor) and key.dtype == torch.bool for key in keys):
            return "a mask as index reads from the device"
        if any(isinstance(key, list) for key in keys):
            return "a list as index is copied to the device"
    return None


def _place():
    """The innermost function of the package that led here, unless an optimizer of torch stands between."""
    frame = sys._getframe(2)
    while frame is not None:
        path = Path(frame.f_code.co_filename)
        if "optim" in path.parts:
            return None
        if path.is_relative_to(ROOT):
            return f"{path.relative_to(ROOT)}:{frame.f_code.co_qualname}"
        frame = frame.f_back
    return None


@contextmanager
def watched(stage):
    """Watch a stage's steps and the batches that it is served; gives a count of what was seen, by place."""
    seen = Counter()

    def within(method):
        def call(*args, **kwargs):
            with _Watch(seen):
                return method(*args, **kwargs)

        return call

    cls = type(stage)
    with (
        patch.object(cls, "training_step", within(cls.training_step)),
        patch.object(BackdoorDataModule, "on_after_batch_transfer", within(BackdoorDataModule.on_after_batch_transfer)),
    ):
        yield seen
