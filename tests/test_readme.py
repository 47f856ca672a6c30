"""The README tells the truth: its Python runs, its commands parse, its names exist."""

import importlib
import pkgutil
import re
import shlex
import textwrap
from pathlib import Path

import lightning.pytorch as pl
import pytest

import lit_backdoor
from lit_backdoor.cli import main
from lit_backdoor.lightning_cli import BackdoorCLI
from lit_backdoor.presets import list_configs

README = Path(__file__).parent.parent / "README.md"
pytestmark = pytest.mark.skipif(not README.exists(), reason="the tests run away from the checkout")
TEXT = README.read_text() if README.exists() else ""

# The first example is of full size; here it is made small. The others run as they stand.
SMALLER = {
    "SyntheticSigns()": "SyntheticSigns(train_per_class=12, test_per_class=4)",
    "channels=16": "channels=8",
    "max_epochs=8": "max_epochs=1",
    "max_epochs=12": "max_epochs=1",
    "max_epochs=6": "max_epochs=1",
}
TINY = shlex.split(
    "--trainer.accelerator cpu --trainer.max_epochs 1 --trainer.limit_train_batches 2 --trainer.limit_val_batches 1 "
    "--data.source.init_args.train_per_class 12 --data.source.init_args.test_per_class 4"
)


def blocks(language):
    return [textwrap.dedent(body) for body in re.findall(rf"^```{language}\n(.*?)^```", TEXT, re.M | re.S)]


def commands():
    lines = [part.strip() for block in blocks("sh") for line in block.splitlines() for part in line.split("&&")]
    return [line for line in lines if line.split()[0] in ("lit-backdoor", "torchrun", "srun")]


def arguments(line):
    words = shlex.split(line)
    start = next(number for number, word in enumerate(words) if word in ("lit-backdoor", "lit_backdoor"))
    return words[start + 1 :]


CHAINS = [line for line in commands() if arguments(line)[0] in ("chain", "demo", "list")]
STAGES = [line for line in commands() if line not in CHAINS]
SEVERAL = [line for line in STAGES if "devices" in line]
RESUMING = [line for line in STAGES if "--ckpt_path" in line]
ALONE = [line for line in STAGES if line not in SEVERAL + RESUMING]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("signs.yaml").write_text(blocks("yaml")[0])
    return tmp_path


@pytest.mark.filterwarnings("ignore")
def test_python_runs_in_order_and_the_foreign_project_is_cleaned(folder, monkeypatch):
    quiet = {"accelerator": "cpu", "logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    init = pl.Trainer.__init__
    monkeypatch.setattr(pl.Trainer, "__init__", lambda self, **options: init(self, **{**quiet, **options}))
    first, *others = blocks("python")
    for words, fewer in SMALLER.items():
        assert words in first, f"the first example has no {words} any more"
        first = first.replace(words, fewer)
    namespace, rates = {}, []
    for number, block in enumerate((first, *others)):
        exec(compile(block, f"README.md, Python block {number}", "exec"), namespace)
        if "wrap(Stripes()" in block:
            rates.append({name: float(value) for name, value in namespace["trainer"].callback_metrics.items()})
    before, after = rates
    assert set(before) == {"val_acc", "val/asr", "val/ra"}
    assert before["val/asr"] > 0.9
    assert after["val/asr"] < 0.3
    assert after["val_acc"] > 0.9
    assert namespace["best"].best_model_score > 0.9


@pytest.mark.filterwarnings("ignore")
def test_stages_run_one_at_a_time(folder):
    assert [arguments(line)[0] for line in ALONE] == ["fit", "predict", "fit", "fit", "test"]
    for line in ALONE:
        assert main(arguments(line) + TINY) == 0, line
    assert {path.name for path in Path("out").iterdir()} == {"victim", "select", "generate", "clean"}
    written = next(Path("lightning_logs/version_0").rglob("*.ckpt"))
    for line in RESUMING:
        assert (
            main(arguments(re.sub(r"(?<=--ckpt_path )\S+", str(written), line)) + TINY + ["--trainer.max_epochs", "2"])
            == 0
        ), line


@pytest.mark.parametrize("line", SEVERAL)
def test_commands_for_several_devices_parse(line, folder):
    parsed = BackdoorCLI(arguments(line), run=False).config
    assert parsed[arguments(line)[0]].trainer.devices in ("2", "8")


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("line", CHAINS)
def test_chains_and_lists_are_known(line, folder, capsys):
    command, *rest = arguments(line)
    if command == "demo":
        command, rest = "chain", ["demo", *rest]
    if command == "chain" and "--dry-run" not in rest:
        rest.append("--dry-run")
    assert main([command, *rest]) == 0, capsys.readouterr().err


def test_the_two_commands_stand_on_lines_of_their_own():
    lines = [line for block in blocks("sh") for line in block.splitlines()]
    assert "pip install . && lit-backdoor demo" in lines
    assert 'pip install ".[test]" && pytest' in lines


def section(title):
    return re.split(r"^## ", TEXT.split(f"\n## {title}\n")[1], flags=re.M)[0]


def first_column(title):
    rows = [line for line in section(title).splitlines() if line.startswith("| `")]
    return {name for row in rows for name in re.findall(r"`([^`]+)`", row.split("|")[1])}


def test_every_attack_is_in_its_table_and_there():
    assert first_column("Attacks") == set(list_configs("attacks"))


def test_every_chain_named_is_there():
    named = set(re.findall(r"`((?:atclean|btidbf)_\w+)`", TEXT)) - set(list_configs("attacks"))
    there = {key.rpartition("/")[2] for kind in ("chains", "defenses", "setups") for key in list_configs(kind)}
    assert named | {"demo", "collision"} <= there


def test_every_class_named_is_there():
    public = {"LightningCLI"}
    for info in pkgutil.walk_packages(lit_backdoor.__path__, "lit_backdoor."):
        if not info.name.endswith("__main__"):
            public.update(getattr(importlib.import_module(info.name), "__all__", ()))
    named = set(re.findall(r"`([A-Z][a-z]+(?:[A-Z][A-Za-z]*)?)\b", TEXT))
    assert named - public == set()


def test_every_table_can_be_found_by_a_script():
    names = re.findall(r"^<!-- table:(\w+) -->$", TEXT, re.M)
    assert names == re.findall(r"^<!-- /table:(\w+) -->$", TEXT, re.M)
    assert len(set(names)) == len(names)
    for name in names:
        body = TEXT.split(f"<!-- table:{name} -->")[1].split(f"<!-- /table:{name} -->")[0]
        assert body.strip().startswith("|"), name


def test_every_link_inside_leads_somewhere():
    titles = {
        re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in re.findall(r"^#+ (.+)$", TEXT, re.M)
    }
    assert set(re.findall(r"\]\(#([^)]+)\)", TEXT)) <= titles
    for file in re.findall(r"\]\((?!#|http)([^)]+)\)", TEXT):
        assert (README.parent / file).exists(), file
