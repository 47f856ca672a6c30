"""A chain writes into its own folders only; what else it finds there is named and stays."""

import pytest
from chain_parts import again, statuses

from lit_backdoor.chain.command import sweep
from lit_backdoor.chain.compose import compose
from lit_backdoor.cli import main


def contents(folder):
    return {str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None for path in folder.rglob("*")}


def in_the_way(out, place):
    path = out / place
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("mine")
    return contents(out)


@pytest.mark.parametrize("place", ["notes.txt", "victim/thesis.tex", "results.json", ".runs/victim/thesis.tex"])
@pytest.mark.parametrize("option", [[], ["--dry-run"], ["--set", "sweep={seed: [1, 2]}"]])
def test_folder_of_somebody_else_is_refused(file, tmp_path, place, option, capfd):
    out = tmp_path / "out"
    before = in_the_way(out, place)
    assert main(["chain", file, "--out", str(out), *option]) == 2
    assert f"'{place.partition('/')[0]}'" in capfd.readouterr().err
    assert contents(out) == before


@pytest.mark.parametrize("place", ["victim/thesis.tex", "clean", ".runs/victim/thesis.tex", ".runs/select/key/a"])
def test_file_of_somebody_else_in_a_chain_s_folder_is_refused(file, tmp_path, place, capfd):
    out = tmp_path / "out"
    out.mkdir()
    (out / ".lit-backdoor").touch()
    before = in_the_way(out, place)
    assert main(["chain", file, "--out", str(out)]) == 2
    assert str(out / place.split("/")[0]) in capfd.readouterr().err
    assert contents(out) == before


def test_file_beside_the_bundles_of_a_chain_stays(file, copy):
    (copy / "notes.txt").write_text("mine")
    assert statuses(again(file, copy)) == ["cached"] * 4
    assert (copy / "notes.txt").read_text() == "mine"


def test_folder_behind_a_link_is_not_emptied(file, copy, tmp_path):
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "key").write_text("mine")
    (copy / ".runs" / "victim").rename(tmp_path / "moved")
    (copy / ".runs" / "victim").symlink_to(tmp_path / "precious")
    with pytest.raises(ValueError, match=r"Expected .*\.runs/victim to be the working folder of an earlier run"):
        again(file, copy)
    assert (tmp_path / "precious" / "key").read_text() == "mine"


def test_empty_out_is_not_the_current_folder(file, tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    before = set(tmp_path.iterdir())
    assert main(["chain", file, "--out", ""]) == 2
    assert "expected a folder, got an empty text" in capfd.readouterr().err
    assert set(tmp_path.iterdir()) == before


@pytest.mark.parametrize("key", ["x/../../../evil", "/tmp/evil"])
def test_keys_of_a_sweep_lead_to_no_folder_outside(file, key):
    net = "{class_path: lit_backdoor.models.ForeignClassifier, init_args: {factory_args: {}}}"
    chain = compose(file, [f"stages.victim.model.init_args.classifier={net}"])
    chain["sweep"] = {f"stages.victim.model.init_args.classifier.init_args.factory_args.{key}": ["../.."]}
    [(label, _)] = sweep(chain)
    assert "/" not in label
