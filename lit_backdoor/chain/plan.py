"""What ``--dry-run`` prints: data, attack, stages with their epochs, and which of them are done already."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from lit_backdoor.chain.testing import build_data

if TYPE_CHECKING:
    from lit_backdoor.chain.run import ChainRun

__all__ = ["plan_lines"]


def plan_lines(run: ChainRun) -> Iterator[str]:
    """Check a run as it would be checked, and describe it: a line each for setup, data, attack and every stage."""
    stages = run.plan()
    done = run.found()
    chain = run.chain
    if chain.get("setup"):
        yield f"setup: {chain['setup']}"
    yield f"data: {_data(chain)}"
    for name, verb, class_path in stages:
        trainer = {**(chain.get("trainer") or {}), **(chain["stages"][name].get("trainer") or {})}
        epochs = f", {trainer['max_epochs']} epochs" if verb == "fit" and trainer.get("max_epochs") else ""
        inputs = ", ".join(dict.fromkeys((chain["stages"][name].get("inputs") or {}).values()))
        yield f"{name}: {verb} {class_path}{epochs}{f' after {inputs}' if inputs else ''}{done.get(name, '')}"


def _data(chain: Mapping[str, Any]) -> str:
    """Describe data and attack; where the data are not here yet, only what they are."""
    module = build_data({**chain["data"], "init_args": {**chain["data"]["init_args"], "seed": chain["seed"]}})
    said = type(module.source).__name__
    with contextlib.suppress(OSError):
        module.prepare_data()
        height, width = module.image_size
        counts = module.counts
        said += (
            f", {module.num_classes} classes, {width}x{height} px, {counts['train']} questioned and {counts['root']} "
        )
        said += f"root images, {counts['clean']} for tests"
    attack = module.attack
    if attack is None:
        return f"{said}\nattack: none"
    named = chain.get("attack") or type(attack.trigger).__name__
    return (
        f"{said}\nattack: {named} ({type(attack.trigger).__name__}, {type(attack.policy).__name__}, target "
        f"{attack.target}, rate {attack.rate} of {attack.rate_of})"
    )
