"""The shipped attacks, by name."""

from __future__ import annotations

from lit_backdoor.presets import find_config, read_config
from lit_backdoor.recipe import rebuild
from lit_backdoor.triggers.base import Attack

__all__ = ["named_attack"]


def named_attack(name: str) -> Attack:
    """Make an attack from its shipped configuration, or from a file of the same form; trained triggers are untrained.

    Args:
        name: As ``lit-backdoor list attacks`` has it, for example ``badnets``; or the path of a YAML file, which may
            name any importable trigger.

    Raises:
        ValueError: If there is none of that name (gives the nearest), or the file is not YAML or
            describes no attack.
    """
    described = read_config("attacks", find_config("attacks", name))
    if isinstance(described, dict) and "class_path" not in described:  # its file names the training of its victim too
        described = described.get("attack")
    attack = rebuild(described, trust=None)
    if not isinstance(attack, Attack):
        raise ValueError(f"Expected '{name}' to describe a lit_backdoor.triggers.Attack, got {type(attack).__name__}.")
    return attack
