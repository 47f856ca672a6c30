"""Nets that a stage uses and never trains."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any, Generic, TypeVar

from torch import nn

__all__ = ["Frozen"]

Net = TypeVar("Net", bound=nn.Module)


class Frozen(nn.Module, Generic[Net]):
    """Hold a net still: it stays in eval mode, needs no gradients, follows the device and is in no state dict.

    Strict loading of a state dict works without its keys. The net itself is frozen, not a copy; gradients flow
    through it to its inputs.

    Args:
        module: The net.
    """

    module: Net

    def __init__(self, module: Net) -> None:
        super().__init__()
        self.module = module.requires_grad_(False)
        self._prefix = ""
        self.eval()
        self.register_load_state_dict_post_hook(_forgive)  # type: ignore[no-untyped-call]

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Call the net."""
        return self.module(*args, **kwargs)

    def train(self, mode: bool = True) -> Frozen[Net]:
        """Stay in eval mode, whatever is asked."""
        return super().train(False)

    def state_dict(self, *, destination: Any = None, prefix: str = "", keep_vars: bool = False) -> Any:
        """Add nothing."""
        return OrderedDict() if destination is None else destination

    def _load_from_state_dict(self, state_dict: Any, prefix: str, *args: Any) -> None:
        self._prefix = prefix
        super()._load_from_state_dict(state_dict, prefix, *args)


def _forgive(frozen: Frozen[nn.Module], incompatible: Any) -> None:
    """Take the net's keys off the missing ones."""
    missing = incompatible.missing_keys
    missing[:] = [key for key in missing if not key.startswith(f"{frozen._prefix}module.")]
