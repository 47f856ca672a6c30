"""What methods say for the rows of their defenses."""

import pytest
import yaml

from lit_backdoor.board.rows import Reported
from lit_backdoor.chain.grid.cells import Cell
from lit_backdoor.chain.grid.methods import access_of, reported_of
from lit_backdoor.presets import list_configs, read_method

METHODS = {path.parent for path in list_configs("defenses").values()}


def test_paper_s_numbers_are_beside_the_paper_s_method_on_its_data():
    found = reported_of(Cell("cifar10_small", "wanet", "btidbf_u", 0))
    assert found == Reported({"acc": 0.9082, "asr": 0.0094}, "BTI-DBF, Tables 2 and 13, full-size ResNet-18")
    assert reported_of(Cell("cifar10", "wanet", "btidbf_u/paper", 0)) == found
    for setup, attack, defense in (
        ("cifar10_small", "wanet", "btidbf_u_varied"),
        ("signs", "wanet", "btidbf_u"),
        ("cifar10", "batt", "btidbf_u"),
        ("cifar10", "wanet", "fine_tune"),
    ):
        assert reported_of(Cell(setup, attack, defense, 0)) is None


@pytest.mark.parametrize("folder", sorted(METHODS), ids=lambda folder: folder.name)
def test_what_methods_report_is_of_known_attacks_and_setups(folder):
    said = read_method(folder).get("reported", {"setups": [], "attacks": []})
    assert set(said["attacks"]) <= set(list_configs("attacks"))
    assert set(said["setups"]) <= set(list_configs("setups"))
    for setup in said["setups"]:
        for attack in said["attacks"]:
            assert reported_of(Cell(setup, attack, folder.name, 0)).value.keys() == {"acc", "asr"}


@pytest.mark.parametrize(
    ("needs", "access"),
    [
        ({"root": True, "questioned": True}, "both"),
        ({"root": True, "questioned": False}, "root"),
        ({"questioned": True}, "questioned"),
        ({}, "none"),
        (None, None),
    ],
)
def test_access_is_what_a_method_needs(tmp_path, needs, access):
    (tmp_path / "mine.yaml").write_text("format: 1\n")
    if needs is not None:
        (tmp_path / "method.yaml").write_text(yaml.safe_dump({"needs": needs}))
    assert access_of(Cell("signs", "badnets", str(tmp_path / "mine.yaml"), 0)) == access


@pytest.mark.parametrize(
    "said",
    [
        "99 %",
        {"source": "A", "setups": ["signs"]},
        {"source": "A", "setups": ["signs"], "attacks": {"badnets": {"acc": 92}}},
        {"source": "A", "setups": ["signs"], "attacks": {"badnets": {"accuracy": 0.9}}},
    ],
)
def test_reports_of_another_form_are_refused(tmp_path, said):
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "mine.yaml").write_text("format: 1\n")
    (folder / "method.yaml").write_text(yaml.safe_dump({"reported": said}))
    with pytest.raises(ValueError, match=r"Expected 'reported' in .*method.yaml as \{source: TEXT"):
        reported_of(Cell("signs", "badnets", str(folder / "mine.yaml"), 0))
