"""A chain is one process in a folder of its own; stages on several devices are commands of their own."""

import fcntl
from pathlib import Path

import pytest
from chain_parts import again, statuses

from lit_backdoor.chain.launch import count_processes
from lit_backdoor.errors import RunStoppedError


def test_folder_that_another_run_writes_is_refused(file, copy):
    with (copy / ".lock").open("r+") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(ValueError, match="Another run is writing"):
            again(file, copy)
    assert statuses(again(file, copy)) == ["cached"] * 4


@pytest.mark.parametrize("world", ["2", "many"])
def test_several_processes_are_refused(file, tmp_path, monkeypatch, world):
    monkeypatch.setenv("WORLD_SIZE", world)
    with pytest.raises(ValueError, match=rf"A chain is one process.*WORLD_SIZE={world}.*--launcher"):
        again(file, tmp_path / "out")


def test_out_that_is_a_file_is_refused(file, tmp_path):
    (tmp_path / "out").write_text("mine")
    with pytest.raises(ValueError, match="to be a folder"):
        again(file, tmp_path / "out")


@pytest.mark.parametrize(
    ("trainer", "count"),
    [
        ({"devices": 1}, 1),
        ({"devices": "1"}, 1),
        ({"devices": 2}, 2),
        ({"devices": [0, 1]}, 2),
        ({"accelerator": "cpu"}, 1),
        ({"accelerator": "cpu", "devices": "auto"}, 1),
        ({"devices": 1, "num_nodes": 2}, 2),
        ({"devices": "0,1"}, 2),
    ],
)
def test_processes_of_a_trainer(trainer, count):
    assert count_processes(trainer) == count


@pytest.mark.parametrize(
    ("trainer", "message"),
    [
        ({"devices": 10**9}, "at most 4,096 of a machine, got 1000000000"),
        ({"devices": "9999"}, "at most 4,096"),
        ({"devices": 1, "num_nodes": 0}, "num_nodes to be a whole number above 0, got 0"),
        ({"devices": 1, "num_nodes": 1.5}, "num_nodes"),
        ({"devices": 1, "num_nodes": None}, "num_nodes"),
    ],
)
def test_machines_that_do_not_exist_are_refused(trainer, message):
    with pytest.raises(ValueError, match=message):
        count_processes(trainer)


def test_several_devices_start_a_command_of_their_own(file, finished, tmp_path, monkeypatch):
    """In process, DDP would start the whole chain again in each of its processes."""
    started = []

    def spawn(arguments, launcher, lock):
        started.append(arguments)

    monkeypatch.setattr("lit_backdoor.chain.run.spawn", spawn)
    with pytest.raises(RunStoppedError, match="Stage 'victim' was stopped before it was complete"):
        again(file, tmp_path / "out", ["trainer.devices=2"])
    [[verb, option, config]] = started
    assert (verb, option) == ("fit", "--config")
    assert Path(config).is_file()
