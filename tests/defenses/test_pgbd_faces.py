"""The chain of PGBD against a semantic trigger, on pictures made here."""

import contextlib
import json
import re

import pytest
import semantic_parts

from lit_backdoor.bundle import open_bundle
from lit_backdoor.chain.compose import compose
from lit_backdoor.chain.run import ChainRun
from lit_backdoor.chain.testing import build_data
from lit_backdoor.report import write_report

NET = "{name: resnet18, num_classes: 4, input_size: 16, channels: 4}"
TINY = (
    "data.init_args.source.init_args={train: train.parquet, test: test.parquet}",
    "data.init_args.split.init_args.root_pool=16",
    "data.init_args.batch_size=16",
    f"stages.victim.model.init_args.classifier.init_args={NET}",
    "stages.victim.trainer.max_epochs=2",
    "stages.sanitize.model.init_args.average=1",
    "stages.sanitize.trainer.max_epochs=1",
    "stages.control.trainer.max_epochs=1",
    "trainer.precision=32-true",
)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("faces")
    semantic_parts.write_parquet(folder)
    with pytest.MonkeyPatch.context() as patch, contextlib.chdir(folder):
        patch.setenv("LIT_BACKDOOR_DATA", str(folder))
        chain = compose("pgbd_faces", TINY)
        ChainRun(chain, "pgbd_faces", folder / "out", use_cache=False).run()
        write_report(folder / "out", build_data(chain["data"]))
    return folder / "out"


def test_a_dry_run_writes_nothing(tmp_path, monkeypatch):
    semantic_parts.write_parquet(tmp_path)
    monkeypatch.chdir(tmp_path)
    plan = ChainRun(compose("pgbd_faces", TINY), "pgbd_faces", tmp_path / "out").plan()
    assert [name for name, _, _ in plan] == ["victim", "sanitize", "control"]
    assert not (tmp_path / "out").exists()


def test_results_count_the_rows_that_carry_it(finished):
    results = json.loads((finished / "results.json").read_text())
    assert results["counts"] == {"clean": 16, "triggered": 12}
    assert results["data"] | {"source": None} == {
        "source": None, "attack": "SemanticTrigger", "policy": "AllToOne", "target": 0, "rate": 1.0,
        "rate_of": "carriers", "n_train": 80, "n_root": 16,
    }  # fmt: skip
    assert all(value is not None for role in ("before", "after") for value in results["summary"][role].values())
    assert {"acc", "asr", "ra"} <= results["stages"][2]["metrics"].keys()


def test_bundles_name_the_attack(finished):
    attack = open_bundle(finished / "victim").attack()
    assert attack.trigger.column == "sunglasses"
    assert open_bundle(finished / "sanitize").numbers["target_class"] == 0


def test_the_report_shows_other_pictures_and_no_difference(finished):
    html = (finished / "report.html").read_text()
    text = " ".join(re.sub(r"<[^>]+>", " ", html).split())
    assert "another picture" in text
    assert "Difference" not in text
    assert "Semantic trigger on 100% of the pictures that carry it" in text
    assert html[: html.index('id="heatmaps"')].count('src="data:image') == 2 * 8
