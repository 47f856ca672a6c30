"""The attack that a data module is given: as an object, by name, or by the bundle of a suspect that carries it."""

from __future__ import annotations

from pathlib import Path

import torch

from lit_backdoor.bundle import Bundle, open_bundle
from lit_backdoor.recipe import recipe
from lit_backdoor.triggers.base import Attack
from lit_backdoor.triggers.named import named_attack

__all__ = ["alike", "attack_given", "attack_of", "check_attack", "same_attack"]


def attack_given(value: Attack | str | None) -> Attack | None:
    """Take an attack as it was given.

    Args:
        value: An attack; the name of a shipped one or of a YAML file; the folder of a bundle; or None.

    Raises:
        ValueError: If there is no attack of that name, or the bundle holds none.
    """
    if not isinstance(value, str):
        return value
    return attack_of(open_bundle(value)) if (Path(value) / "bundle.json").is_file() else named_attack(value)


def attack_of(bundle: Bundle) -> Attack:
    """Rebuild the attack that a bundle was made under, with the weights of its trigger.

    Raises:
        ValueError: If the bundle does not know its attack.
    """
    attack = bundle.attack()
    if not isinstance(attack, Attack):
        raise ValueError(
            f"Expected a bundle that carries its attack, got {bundle.path}, which carries none. Set data.attack to the "
            "attack of the suspect, for example data.attack=badnets."
        )
    return attack


def alike(one: Attack, other: Attack) -> bool:
    """Say whether two attacks are described alike: trigger, policy and target; rates, seeds and weights may differ."""
    return one.target == other.target and all(
        recipe(getattr(one, part)) == recipe(getattr(other, part)) for part in ("policy", "trigger")
    )


def same_attack(one: Attack, other: Attack) -> bool:
    """Say whether two attacks stamp the same trigger, weights included, and give the same labels."""
    if one is other:
        return True
    mine, theirs = one.trigger.state_dict(), other.trigger.state_dict()
    return alike(one, other) and all(  # a picture is part of the state once it was read
        mine[name].shape == theirs[name].shape
        and torch.allclose(mine[name].cpu().double(), theirs[name].cpu().double(), atol=1e-6)
        for name in mine.keys() & theirs.keys()
    )


def check_attack(attack: Attack | None, suspect: Bundle) -> None:
    """Check that data are triggered by the attack of the suspect at hand, whose ASR they would measure otherwise.

    Raises:
        ValueError: If the suspect's bundle carries another attack.
    """
    if attack is None or suspect.info["attack"] is None:
        return
    theirs = attack_of(suspect)
    if not same_attack(attack, theirs):
        raise ValueError(
            f"Expected data.attack to be the attack of the suspect at {suspect.path} ({described(theirs)}), got "
            f"{described(attack)}. Set data.attack={suspect.path}, which takes trigger, weights and target from there."
        )


def described(attack: Attack) -> str:
    """Name an attack's trigger, policy and target."""
    return f"{type(attack.trigger).__name__}, {type(attack.policy).__name__}, target {attack.target}"
