"""A folder of one's own images: the chain takes what it needs to know from them."""

import json
import re
from pathlib import Path

import pytest
from cli_parts import refused

from lit_backdoor.chain.command import _source_of
from lit_backdoor.cli import main

README = Path(__file__).resolve().parents[2] / "lit_backdoor" / "chain" / "README.md"
PLAN = [
    "data: ImageFolderSource, 43 classes, 32x32 px, 2322 questioned and 258 root images, 860 for tests",
    "victim: fit lit_backdoor.stages.PoisonedTraining, 19 epochs",  # 670 steps of 64 of 2322 rows
    "generate: fit lit_backdoor.defenses.atclean.CollisionGenerator, 45 epochs after victim, select",
    "clean: fit lit_backdoor.stages.UnlearningFineTune, 27 epochs after victim, generate",  # 110 steps of 64 of 258
]


@pytest.mark.slow
def test_folder_of_43_classes_needs_no_settings(tmp_path, monkeypatch, capsys):
    """The folder is written as the README says."""
    monkeypatch.chdir(tmp_path)
    blocks, written = re.findall(r"^```python\n(.*?)^```", README.read_text(), re.M | re.S), {}
    exec(next(block for block in blocks if "def write_signs" in block), written)
    written["write_signs"]("signs")
    assert len(list(Path("signs/train").iterdir())) == 43
    assert {len(list(folder.iterdir())) for folder in Path("signs/train").iterdir()} == {60}
    assert main(["chain", "atclean_mixed", "--data", "signs", "--dry-run"]) == 0
    said = capsys.readouterr().out.splitlines()
    assert [line for line in PLAN if line not in said] == []
    assert not Path("runs").exists()


def test_a_folder_without_parts_is_answered_with_where_the_images_go(tmp_path, monkeypatch, capfd):
    (tmp_path / "photos" / "cat").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    said = refused(capfd, ["chain", "fine_tune", "--data", "photos", "--dry-run"], "found no folder photos/train")
    assert "Put most images of each class below the first" in said


@pytest.mark.parametrize("part", ["test", "val", "validation"])
def test_images_to_measure_on_go_by_their_usual_names(tmp_path, part):
    for name in ("train", part):
        (tmp_path / name).mkdir()
    [setting] = _source_of(str(tmp_path))
    assert json.loads(setting.partition("=")[2])["init_args"]["test"] == str(tmp_path / part)
