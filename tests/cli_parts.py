"""A stage's configuration as somebody would write it by hand, and refusals as they should read."""

from pathlib import Path

import tiny
import yaml

from lit_backdoor.cli import main

ROOT = Path(__file__).resolve().parent.parent


def written(folder, model, trainer=None, data=None, name="stage.yaml", **more):
    """Write a stage's configuration as somebody would by hand."""
    config = tiny.chain()["data"]
    attack = yaml.safe_load((ROOT / "configs" / "attacks" / "badnets_3x3.yaml").read_text())
    init_args = {**config["init_args"], "attack": attack, **(data or {})}
    file = folder / name
    file.write_text(yaml.safe_dump({
        "trainer": {**tiny.QUIET, "max_epochs": 1, **(trainer or {})}, "model": model,
        "data": {**config, "init_args": init_args}, **more,
    }))  # fmt: skip
    return str(file)


POISONED = {"class_path": "lit_backdoor.stages.PoisonedTraining", "init_args": {"classifier": tiny.NET}}


def refused(capfd, arguments, *says, code=2):
    assert main([str(argument) for argument in arguments]) == code
    error = capfd.readouterr().err
    assert "Traceback" not in error
    for text in says:
        assert text in error
    return error
