"""The relapse test: a cleaned suspect is fine-tuned a little more, to see if the backdoor comes back."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

__all__ = ["STAGES", "with_relapse"]

STAGES = {"clean": "relapse_clean", "poisoned": "relapse_poisoned"}  # by what the suspect is tuned on
_EPOCHS = 5  # Retuning attack: five epochs on five poisoned samples
_FINE_TUNE = {"class_path": "lit_backdoor.stages.FineTune"}
_RETUNE = {"class_path": "lit_backdoor.attacks.Retuning"}


def with_relapse(chain: Mapping[str, Any]) -> dict[str, Any]:
    """Append two stages to a chain that cleans a suspect, each of which starts from the cleaned one.

    ``relapse_clean`` fine-tunes on clean root data, ``relapse_poisoned`` on five poisoned samples under the attacker's
    label (the Retuning attack), five epochs each.

    Raises:
        ValueError: If the chain names no cleaned suspect, or has stages of these names.
    """
    cleaned = (chain.get("summary") or {}).get("after")
    if cleaned is None:
        raise ValueError("Expected a chain with summary.after, the cleaned suspect, for --relapse, got none.")
    if taken := [name for name in STAGES.values() if name in chain["stages"]]:
        raise ValueError(f"Expected no stage '{taken[0]}' in a chain with --relapse, which adds it.")
    longer = copy.deepcopy(dict(chain))
    for name, model in zip(STAGES.values(), (_FINE_TUNE, _RETUNE), strict=True):
        longer["stages"][name] = {
            "model": dict(model), "inputs": {"model.suspect": cleaned}, "trainer": {"max_epochs": _EPOCHS},
        }  # fmt: skip
    if longer["data"]["init_args"].get("attack") is None:
        del longer["stages"][STAGES["poisoned"]]  # a clean model has no trigger to come back
    return longer
