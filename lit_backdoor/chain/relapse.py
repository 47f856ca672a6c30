"""The relapse test: a cleaned suspect is fine-tuned a little more, to see if the backdoor comes back."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

__all__ = ["STAGES", "with_relapse"]

STAGES = {"clean": "relapse_clean", "poisoned": "relapse_poisoned"}  # by what the suspect is tuned on
_EPOCHS = 5  # Retuning attack: five epochs on five poisoned samples
_CLASSES = ("lit_backdoor.stages.FineTune", "lit_backdoor.attacks.Retuning")
_OPTIMIZER = {"class_path": "torch.optim.SGD", "init_args": {"lr": 0.01, "momentum": 0.9}}


def with_relapse(chain: Mapping[str, Any]) -> dict[str, Any]:
    """Append two stages to a chain that cleans a suspect, each of which starts from the cleaned one.

    ``relapse_clean`` fine-tunes on clean root data, ``relapse_poisoned`` on the same with five poisoned samples under
    the attacker's label (Retuning attack), five epochs each. Clean models get only the first.

    Raises:
        ValueError: If the chain names no cleaned suspect, or has stages of these names.
    """
    cleaned = (chain.get("summary") or {}).get("after")
    if cleaned is None:
        raise ValueError("Expected a chain with summary.after, the cleaned suspect, for --relapse, got none.")
    if taken := [name for name in STAGES.values() if name in chain["stages"]]:
        raise ValueError(f"Expected no stage '{taken[0]}' in a chain with --relapse, which adds it.")
    longer = copy.deepcopy(dict(chain))
    for name, class_path in zip(STAGES.values(), _CLASSES, strict=True):
        longer["stages"][name] = {
            "model": {"class_path": class_path, "init_args": {"optimizer": copy.deepcopy(_OPTIMIZER)}},
            "inputs": {"model.suspect": cleaned},
            "trainer": {"max_epochs": _EPOCHS},
        }
    if chain["data"]["init_args"].get("attack") is None or chain.get("questioned") is False:
        del longer["stages"][STAGES["poisoned"]]  # a clean model has no backdoor; nor are there rows without the set
    return longer
