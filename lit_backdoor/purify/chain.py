"""The chain that cleans a model from outside: a setup made of it and of clean images, and a shipped defense."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from lit_backdoor.chain.classes import load_class
from lit_backdoor.chain.compose import compose
from lit_backdoor.chain.cut import cut
from lit_backdoor.presets import find_config, read_method
from lit_backdoor.recipe import arguments_of

__all__ = ["check_defense", "make_chain", "make_setup"]

_CONTROL = 110  # steps of plain fine-tuning, the result of the defense `fine_tune`


def check_defense(name: str, target: str | int | None) -> None:
    """Check that a defense needs only what there is: clean images, and the target class if that is given.

    Raises:
        ValueError: If it needs the questioned set, or a target that is not given; names both ways on.
    """
    method = read_method(find_config("chains", name, among=("defenses", "chains")).parent)
    needs = method.get("needs") or {}
    if needs.get("questioned"):
        raise ValueError(
            f"Expected a defense that needs only clean images, but '{name}' needs the questioned training set as well. "
            "Take another one, such as --with pgbd_nt_stamps; or, if you have that set, write a setup of it and run: "
            f"lit-backdoor chain {name} --setup FILE."
        )
    if needs.get("target") == "given" and target is None:
        raise ValueError(
            f"Expected the target class for '{name}'. If you know it, add --target CLASS; if an audit is to find it, "
            "give --with auto."
        )


def make_setup(suspect: Path, digest: str, images: dict[str, Path], size: int) -> dict[str, Any]:
    """Describe a model from outside, and who holds which clean images, as a setup.

    Args:
        suspect: Its bundle.
        digest: The bundle's hash.
        images: Parquet files of the parts ``train``, which is the root set, and ``test``, with the outputs' names.
        size: Side of the images in pixels.
    """
    files = {part: str(path) for part, path in images.items()}
    source = {"class_path": "lit_backdoor.data.ParquetSource", "init_args": files}
    crop = {"class_path": "lit_backdoor.data.CropFlip", "init_args": {"padding": max(1, size // 16), "flip": False}}
    return {
        "format": 1,
        "attack": "null",
        "questioned": False,
        "data": {
            "class_path": "lit_backdoor.data.BackdoorDataModule",
            # all images of the training part are clean: it is the root set, and nobody's questioned set
            "init_args": {"source": source, "root_source": source, "split": {"root_pool": 0}, "batch_size": 64,
                          "eval_batch_size": 128, "augment": crop},
        },
        "trainer": {"accelerator": "auto", "devices": 1, "num_sanity_val_steps": 0, "enable_model_summary": False,
                    "enable_progress_bar": False},
        "stages": {
            "victim": {
                "run": "predict",
                "model": {
                    "class_path": "lit_backdoor.stages.GivenSuspect",
                    "init_args": {"suspect": str(suspect), "digest": digest},
                },
            },
            "control": {
                "model": {"class_path": "lit_backdoor.stages.FineTune"},
                "inputs": {"model.suspect": "victim"},
                "steps": _CONTROL,
            },
        },
        "summary": {"before": "victim"},
    }  # fmt: skip


def make_chain(
    defense: str, setup: Path, target: int | None, settings: Iterable[str], seed: int, trust: Iterable[str]
) -> dict[str, Any]:
    """Compose the chain of a defense on a setup, up to the cleaned suspect.

    Args:
        defense: A shipped defense or a file.
        setup: The file of the setup.
        target: The target class, for the stages that take one; None leaves it to the defense.
        settings: ``a.b.c=value`` texts.
        seed: The chain's seed.
        trust: Packages and modules whose classes bundles may name.

    Raises:
        ValueError: If the defense cleans nothing, or takes no target but is given one.
    """
    chain = compose(defense, settings, seed, setup=str(setup), attack="null")
    last = (chain.get("summary") or {}).get("after")
    if last is None:
        raise ValueError(f"Expected a defense that cleans a suspect, but '{defense}' changes none. Audit it instead.")
    if target is not None:
        _give_target(chain, defense, target)
    chain["trust"] = [*(chain.get("trust") or ()), *trust]
    return cut(chain, last)


def _give_target(chain: dict[str, Any], defense: str, target: int) -> None:
    """Give the target class to every stage that takes one, in place of a detector's finding."""
    taking = [s for s in chain["stages"].values() if "target" in arguments_of(load_class(s["model"]["class_path"]))]
    if not taking:
        raise ValueError(f"Expected no --target for '{defense}', which takes none. Leave it out.")
    for stage in taking:
        stage["model"].setdefault("init_args", {})["target"] = target
        stage["inputs"] = {key: source for key, source in stage["inputs"].items() if key != "model.target"}
