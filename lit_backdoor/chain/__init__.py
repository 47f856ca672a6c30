"""Chains: stages composed of setup, attack and defense, run one after the other, each done once."""

from __future__ import annotations

from typing import Any

__all__ = ["run_chain"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'lit_backdoor.chain' has no attribute '{name}'")
    from lit_backdoor.chain import command  # needs torch, which composing does not

    return getattr(command, name)
