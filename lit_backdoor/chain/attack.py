"""Where a chain's attack comes from: the bundle of its victim, whose trigger may have been trained with it."""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Mapping
from typing import Any

from safetensors.torch import save

from lit_backdoor.bundle import Bundle
from lit_backdoor.data.attack_given import attack_of
from lit_backdoor.recipe import recipe

__all__ = ["attack_hash", "attacker_of", "with_attack"]


def attacker_of(chain: Mapping[str, Any]) -> str | None:
    """Name the stage whose bundle gives the attack to all stages after it: the one the summary starts from.

    Without a summary it is the first stage without inputs; None if the chain has none.
    """
    before = (chain.get("summary") or {}).get("before")
    first = next((name for name, stage in chain["stages"].items() if not stage.get("inputs")), None)
    return before or first


def with_attack(data: Mapping[str, Any], bundle: Bundle | None) -> dict[str, Any]:
    """Give the description of a data module that takes its attack from a bundle, if that carries one."""
    described = copy.deepcopy(dict(data))
    if bundle is not None and bundle.info["attack"] is not None:
        described.setdefault("init_args", {})["attack"] = str(bundle.path)
    return described


def attack_hash(bundle: Bundle) -> str:
    """Hash the attack that a bundle carries: its description and the weights of its trigger."""
    attack = attack_of(bundle)
    weights = {name: value.contiguous() for name, value in attack.trigger.state_dict().items()}
    return hashlib.sha256(json.dumps(recipe(attack), sort_keys=True).encode() + save(weights)).hexdigest()
