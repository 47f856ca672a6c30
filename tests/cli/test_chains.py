import json

import pytest
import tiny
import yaml
from cli_parts import refused

from lit_backdoor.cli import main


def test_dry_run_prints_the_plan_and_writes_nothing(folder, capfd):
    assert main(["chain", "demo", "--dry-run"]) == 0
    shown = capfd.readouterr().out
    assert "select: predict lit_backdoor.stages.LowestLoss" in shown
    assert [path.name for path in folder.iterdir()] in ([], ["cache"])  # drawn signs are kept for the run


def test_chain_runs_and_says_where_things_are(folder, capfd):
    chain = tiny.chain()
    chain["stages"] = {"victim": chain["stages"]["victim"]}
    chain["summary"] = {"before": "victim", "after": None}
    (folder / "own.yaml").write_text(yaml.safe_dump(chain))
    assert main(["chain", "own.yaml", "--seed", "2", "--set", "stages.victim.trainer.max_epochs=1"]) == 0
    shown = capfd.readouterr().out
    results = folder / "runs" / "own-seed2" / "results.json"
    assert json.loads(results.read_text())["seed"] == 2
    assert str(results.relative_to(folder)) in shown
    assert "ACC" in shown


def test_sweep_runs_each_variant_in_a_folder_of_its_own(folder, capfd):
    chain = tiny.chain(sweep={"data.init_args.attack": ["badnets_3x3", None]})
    chain["stages"] = {"victim": chain["stages"]["victim"]}
    chain["stages"]["victim"]["trainer"]["max_epochs"] = 1
    chain["summary"] = {"before": "victim"}
    (folder / "own.yaml").write_text(yaml.safe_dump(chain))
    out = folder / "of [/b] :x:"  # no markup, whatever it looks like
    assert main(["chain", "own.yaml", "--out", str(out)]) == 0
    assert str(out) in capfd.readouterr().out
    runs = json.loads((out / "sweep.json").read_text())["runs"]
    assert [run["run"] for run in runs] == ["attack=badnets_3x3", "attack=None"]
    assert runs[1]["summary"]["before"]["asr"] is None
    assert all((out / run["run"] / "results.json").is_file() for run in runs)


@pytest.mark.parametrize(
    ("setting", "says"),
    [
        ("data.init_args.attack.init_args.target=16", "target"),
        ("data.init_args.attack.init_args.target=-1", "target"),
        ("data.init_args.attack.init_args.rate=0", "(0, 1"),
        ("data.init_args.attack.init_args.rate=1.5", "(0, 1"),
        ("stages.select.model.init_args.share=1", "(0, 1)"),
        ("data.init_args.split.root_pool=1.5", "split.root_pool"),
        ("data.init_args.batch_size=0", "batch_size"),
    ],
)
def test_values_out_of_range(folder, capfd, setting, says):
    file = tiny.write_chain(folder / "tiny.yaml")
    refused(capfd, ["chain", file, "--no-cache", "--set", setting], says)
    assert not (folder / "runs" / "tiny-seed5" / "victim").exists()


def test_missing_argument_is_said_with_its_stage(folder, capfd):
    file = tiny.write_chain(folder / "tiny.yaml")
    setting = "stages.clean.inputs.model.generator=null"
    refused(capfd, ["chain", file, "--dry-run", "--set", setting], "Stage 'clean'", "are required: generator")


def test_classifier_for_other_classes(folder, capfd):
    file = tiny.write_chain(folder / "tiny.yaml")
    setting = "stages.victim.model.init_args.classifier.init_args.num_classes=7"
    refused(capfd, ["chain", file, "--no-cache", "--set", setting], "data's 4 classes, got one for 7")


def test_corrupt_parquet_is_named(folder, capfd):
    (folder / "train.parquet").write_bytes(b"")
    (folder / "test.parquet").write_bytes(b"PAR1 nothing PAR1")
    file = tiny.write_chain(folder / "tiny.yaml")
    arguments = {part: str(folder / f"{part}.parquet") for part in ("train", "test")}
    source = json.dumps({"class_path": "lit_backdoor.data.ParquetSource", "init_args": arguments})
    refused(capfd, ["chain", file, "--no-cache", "--set", f"data.init_args.source={source}"], ".parquet")


@pytest.mark.parametrize(("change", "says"), [
    (["--set", "trainer.devices=abc"], "devices"),
    (["--set", "trainer.devices=0"], "devices"),
    (["--set", "sweep=3"], "list of values"),
    (["--set", "sweep={data.init_args.attack.init_args.rate: 0.1}"], "list of values"),
    (["--launcher", "no-such-launcher"], "no-such-launcher"),
])  # fmt: skip
def test_chain_refuses_what_it_cannot_start(capfd, change, says):
    refused(capfd, ["chain", "demo", "--dry-run", *change], "Expected", says)
