"""A part of a chain: one of its stages and all that this one needs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lit_backdoor.errors import one_of

__all__ = ["cut"]


def cut(chain: Mapping[str, Any], last: str) -> dict[str, Any]:
    """Leave out every stage that another one does not need.

    Raises:
        ValueError: If the chain has no such stage; gives the nearest.
    """
    needed, queue = set[str](), [one_of("stage", last, chain["stages"])]
    while queue:
        name = queue.pop()
        needed.add(name)
        queue += [source for source in chain["stages"][name].get("inputs", {}).values() if source not in needed]
    stages = {name: stage for name, stage in chain["stages"].items() if name in needed}
    summary = {role: name if name in needed else None for role, name in (chain.get("summary") or {}).items()}
    return {**chain, "stages": stages, "summary": summary}
