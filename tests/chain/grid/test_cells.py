"""Grid files: what they multiply to, and what is refused."""

import datetime
import subprocess
import sys

import pytest
import yaml
from grid_parts import write_grid

from lit_backdoor.chain.grid.cells import Cell, read_grid


def grid(folder, **content):
    file = folder / "grid.yaml"
    given = {"format": 1, "defenses": ["fine_tune"], **content}
    file.write_text(yaml.safe_dump({key: value for key, value in given.items() if value != "left out"}))
    return str(file)


def test_lists_are_multiplied(tmp_path):
    cells = read_grid(grid(tmp_path, attacks=["badnets", None], defenses=["fine_tune", "pgbd"], seeds=[0, 1])).cells
    assert len(cells) == len({cell.name for cell in cells}) == 8
    assert cells[0] == Cell("signs", "badnets", "fine_tune", 0)
    assert {cell.attack for cell in cells} == {"badnets", "null"}
    assert cells[-1].words == ["chain", "pgbd", "--setup", "signs", "--attack", "null", "--seed", "1"]


def test_excludes_overrides_relapse_resources_and_flags(tmp_path):
    [one, two] = read_grid(grid(
        tmp_path, attacks=["badnets", "blend"], defenses=["fine_tune", "pgbd"],
        exclude=[{"attack": "blend", "defense": ["pgbd"]}, {"attack": ["badnets"], "defense": "fine_tune"}],
        overrides=[{"when": {"defense": "pgbd"}, "set": {"stages.sanitize.steps": 3, "trainer.precision": "32-true"}}],
        relapse=["pgbd"], resources={"signs": {"cpus": 2, "gpus": 0.5}}, flags=["development"],
    )).cells  # fmt: skip
    assert (two.attack, two.defense, two.settings, two.relapse) == ("blend", "fine_tune", (), False)
    assert (one.attack, one.defense, one.relapse) == ("badnets", "pgbd", True)
    assert one.settings == ("stages.sanitize.steps=3", 'trainer.precision="32-true"')
    assert one.words[-5:] == ["--set", one.settings[0], "--set", one.settings[1], "--relapse"]
    assert (one.cpus, one.gpus, one.flags) == (2, 0.5, ("development",))


def test_files_beside_the_grid_are_found_from_any_folder(tmp_path):
    (tmp_path / "own.yaml").write_text("{format: 1, base: fine_tune}")
    excluded = {"exclude": [{"defense": "own.yaml", "seed": 1}]}
    [cell] = read_grid(grid(tmp_path, defenses=["own.yaml"], seeds=[0, 1], **excluded)).cells
    assert (cell.defense, cell.name) == (str(tmp_path / "own.yaml"), "signs-badnets-own-seed0")


def test_an_override_without_conditions_is_about_every_cell(tmp_path):
    cells = read_grid(
        grid(tmp_path, defenses=["fine_tune", "pgbd"], overrides=[{"set": {"stages.victim.steps": 9}}])
    ).cells
    assert [cell.settings for cell in cells] == [("stages.victim.steps=9",)] * 2


def test_grids_include_others(tmp_path):
    grid(tmp_path)
    (tmp_path / "more.yaml").write_text("{format: 1, include: [grid.yaml], defenses: [pgbd, fine_tune]}")
    assert [cell.defense for cell in read_grid(str(tmp_path / "more.yaml")).cells] == ["fine_tune", "pgbd"]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({"defenses": ["pgbdd"]}, "Did you mean 'pgbd'"),
        ({"attacks": ["badnet"]}, "Did you mean 'badnets'"),
        ({"setups": ["sign"]}, "Did you mean 'signs'"),
        ({"defences": []}, "Did you mean 'defenses'"),
        ({"format": 2}, "'format: 1'"),
        ({"defenses": "left out"}, "to have cells, got none"),
        ({"seeds": []}, "to have cells, got none"),
        ({"exclude": [{"seed": 0}]}, "to have cells, got none"),
        ({"seeds": [-1]}, "seeds from 0"),
        ({"seeds": [True]}, "seeds from 0"),
        ({"seeds": [1, 1]}, "once, got '1' twice"),
        ({"seeds": [0, 0]}, "once, got '0' twice"),
        ({"seeds": list(range(20_001))}, "at most 20,000 cells in the grid .*, got 20,001"),
        ({"seeds": 3}, "'seeds' in the grid .* to be a list"),
        ({"exclude": [{"attacks": "blend"}]}, "Did you mean 'attack'"),
        ({"exclude": ["blend"]}, "Expected conditions"),
        ({"overrides": [{"if": {}, "set": {}}]}, "key of an override"),
        ({"overrides": ["seed"]}, "Expected overrides such as"),
        ({"overrides": [{"when": {"seed": 0}, "set": [1]}]}, "Expected 'set' to be a section"),
        ({"overrides": [{"when": {"seed": 0}, "set": {"a": float("nan")}}]}, "finite numbers, texts, .* got a: nan"),
        ({"overrides": [{"when": {"seed": 0}, "set": {"a": datetime.date(2020, 1, 1)}}]}, "finite numbers, texts"),
        ({"relapse": ["pgbd"]}, "defense to test for relapse"),
        ({"resources": {"cifar10": {}}}, "setup with resources"),
        ({"resources": {"default": {"cpus": 0}}}, "Expected cpus"),
        ({"resources": {"default": {"gpus": float("nan")}}}, "a share of one GPU"),
        ({"resources": {"default": {"gpus": float("inf")}}}, "a share of one GPU"),
        ({"resources": {"default": {"gpus": True}}}, "a share of one GPU"),
        ({"resources": {"default": {"gpus": -1}}}, "a share of one GPU"),
        ({"resources": {"default": {"gpus": 1.5}}}, "a share of one GPU"),
        ({"include": ["grid.yaml"]}, "leads back to it"),
        ({"goal": {"asr": 10}}, r"goal's asr in the grid .* a share in \[0, 1\], got 10"),
        ({"goal": {"acc": 0.9}}, "Unknown goal of the grid"),
    ],
)
def test_mistakes_are_named(tmp_path, content, said):
    with pytest.raises(ValueError, match=said):
        read_grid(grid(tmp_path, **content))


@pytest.mark.parametrize(
    "content", [{"exclude": [{"attack": "blend"}]}, {"overrides": [{"when": {"seed": 7}, "set": {}}]}]
)
def test_conditions_that_match_nothing_are_warned_of(tmp_path, content):
    with pytest.warns(UserWarning, match="matches no cell"):
        read_grid(grid(tmp_path, **content))


def test_two_cells_that_would_write_one_folder_are_refused(tmp_path):
    (tmp_path / "other").mkdir()
    write_grid(tmp_path)
    (tmp_path / "other" / "tune0.yaml").write_text((tmp_path / "tune1.yaml").read_text())
    file = write_grid(tmp_path, defenses=[str(tmp_path / "tune0.yaml"), str(tmp_path / "other" / "tune0.yaml")])
    with pytest.raises(ValueError, match="two would write 'mini-badnets_3x3-tune0-seed0'"):
        read_grid(file)


def test_planning_needs_no_torch(tmp_path):
    file = grid(tmp_path, attacks=["badnets", "blend"], defenses=["pgbd", "tac"], seeds=[0, 1])
    code = (
        "import sys\nfrom lit_backdoor.chain.grid.cells import read_grid\nfrom lit_backdoor.chain.grid.graph import connect\n"
        "from lit_backdoor.chain.grid.plan import make_plan\nfrom lit_backdoor.chain.store import Store\nfrom pathlib import Path\n"
        f"make_plan(connect(read_grid({file!r}).cells), Path({str(tmp_path / 'out')!r}), Store()).lines()\n"
        "assert not {'torch', 'lightning'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_files_that_include_each_other_many_times_are_refused(tmp_path):
    for number in range(12):
        below = [f"more{number + 1}.yaml"] * 9 if number < 11 else []
        content = {"format": 1, "defenses": ["fine_tune"], "include": below}
        (tmp_path / f"more{number}.yaml").write_text(yaml.safe_dump(content))
    with pytest.raises(ValueError, match="a grid of at most 100 files, got more"):
        read_grid(str(tmp_path / "more0.yaml"))
