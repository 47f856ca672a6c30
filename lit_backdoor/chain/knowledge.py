"""What the defense of a chain knows: the data that it is given, and what its choices see."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lit_backdoor.chain.classes import load_class
from lit_backdoor.chain.cut import cut
from lit_backdoor.chain.keys import POISONED

__all__ = ["knowledge_of"]


def knowledge_of(chain: Mapping[str, Any]) -> dict[str, str | None]:
    """Say what the defense of a chain knows, by the classes of its stages; None where there is no defense.

    Returns:
        ``access``, the data that it is given: ``none``, ``root``, ``questioned`` or ``both``; ``selection``, the data
        that its choices see: ``none``, ``root`` or ``oracle``.
    """
    classes = _defense(chain)
    if not classes:
        return {"access": None, "selection": None}
    views = {view for cls in classes for view in cls.views}
    root, questioned = "root" in views, bool(views & POISONED)
    access = "both" if root and questioned else "root" if root else "questioned" if questioned else "none"
    seen = {getattr(cls, "selection", "none") for cls in classes}
    return {"access": access, "selection": next((each for each in ("oracle", "root") if each in seen), "none")}


def _defense(chain: Mapping[str, Any]) -> list[Any]:
    """Give the classes of a defense's stages: those that its result needs and the suspect does not.

    A detector's chain has no result. There they are all stages that the suspect does not need, but the control.
    """
    summary = chain.get("summary") or {}
    before, after = summary.get("before"), summary.get("after")
    stages = cut(chain, after)["stages"] if after else chain["stages"]
    others = {*(cut(chain, before)["stages"] if before else ()), *(() if after else ("control",))}
    return [load_class(stage["model"]["class_path"]) for name, stage in stages.items() if name not in others]
