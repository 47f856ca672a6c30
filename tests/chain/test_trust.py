"""Classes of the user's own go through a whole chain; bundles name only what was trusted."""

import sys

import pytest
import tiny
import yaml

from lit_backdoor.bundle import open_bundle
from lit_backdoor.chain import run_chain
from lit_backdoor.chain.classes import load_class, trusted
from lit_backdoor.chain.compose import compose
from lit_backdoor.cli import main

NET = """
from torch import nn


class Net(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU())
        self.pool = nn.AdaptiveAvgPool2d(4)
        self.head = nn.Linear(16 * width, 4)

    def forward(self, images):
        return self.head(self.pool(self.body(images)).flatten(1))


def make(width):
    return Net(width)
"""
OWN = {
    "class_path": "lit_backdoor.models.ForeignClassifier",
    "init_args": {"factory": "own_net.make", "factory_args": {"width": 4}, "split": "body", "mean": [0.5] * 3,
                  "std": [0.5] * 3},
}  # fmt: skip


@pytest.fixture
def folder(tmp_path, monkeypatch):
    (tmp_path / "own_net.py").write_text(NET)
    chain = tiny.chain()
    chain["stages"] = {name: chain["stages"][name] for name in ("victim", "select")}
    chain["stages"]["victim"]["model"]["init_args"]["classifier"] = OWN
    chain["stages"]["tune"] = {
        "model": {"class_path": "lit_backdoor.stages.FineTune"}, "inputs": {"model.suspect": "victim"},
        "trainer": {"max_epochs": 1},
    }  # fmt: skip
    chain["summary"] = {"before": "victim", "after": "tune"}
    (tmp_path / "own.yaml").write_text(yaml.safe_dump(chain))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    yield tmp_path
    sys.modules.pop("own_net", None)


def test_a_net_written_by_hand_goes_through_a_chain_that_names_it(folder, capfd):
    assert main(["chain", "own.yaml", "--out", "out", "--no-cache"]) == 0, capfd.readouterr().err
    assert (folder / "out" / "report.html").is_file()
    with pytest.raises(ValueError, match=r"names 'own_net.make', which is not on the allow-list.*--trust"):
        open_bundle(folder / "out" / "tune").build()


def test_a_chain_trusts_what_it_names_and_what_it_says(folder):
    sys.path.append(str(folder))
    chain = {**compose("own.yaml"), "trust": ["another"]}
    assert trusted(chain) == ("another", "own_net.make")
    assert trusted(compose("atclean_mixed")) == ()


def test_trust_is_a_list_of_names(folder):
    with pytest.raises(ValueError, match="Expected 'trust' in the chain to list names"):
        compose("own.yaml", ["trust=own_net"])


def test_a_chain_run_from_python_gives_its_results(folder):
    sys.path.append(str(folder))
    results = run_chain("own.yaml", seed=3, out=folder / "out", use_cache=False)
    assert results["seed"] == 3
    assert results["summary"]["stages"] == {"before": "victim", "after": "tune"}
    assert [stage["status"] for stage in results["stages"]] == ["ran"] * 3
    with pytest.raises(ValueError, match="'own.yaml' is a sweep"):
        run_chain("own.yaml", settings=["sweep={seed: [1, 2]}"], out=folder / "out")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("def broken(:\n", "whose module fails: SyntaxError: .*own_net.py, line 1"),
        ("\nundefined\n", "whose module fails: NameError in .*own_net.py, line 2: name 'undefined'"),
        ("import sys\nsys.exit(3)\n", "whose module fails: SystemExit in .*own_net.py, line 2: 3"),
        ("Net = 5\n", "Expected the name of a class, got 'own_net.Net', which is a int"),
    ],
)
def test_a_module_of_ones_own_that_fails_says_where(folder, text, said):
    (folder / "own_net.py").write_text(text)
    sys.path.insert(0, str(folder))
    with pytest.raises(ValueError, match=said):
        load_class("own_net.Net")
