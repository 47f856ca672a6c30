"""Chains: stages composed of setup, attack and defense, run one after the other, each done once."""

from __future__ import annotations

import importlib
from typing import Any

__all__ = ["run_chain", "run_grid"]

_HOMES = {"run_chain": "lit_backdoor.chain.command", "run_grid": "lit_backdoor.chain.grid.command"}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'lit_backdoor.chain' has no attribute '{name}'")
    return getattr(importlib.import_module(_HOMES[name]), name)  # a chain needs torch, composing does not
