"""The READMEs tell the truth: their Python runs, their commands parse, their links lead somewhere."""

import importlib
import pkgutil
import re
import shlex
from pathlib import Path

import pytest

import lit_backdoor
from lit_backdoor.chain.compose import compose
from lit_backdoor.chain.grid.cells import read_grid
from lit_backdoor.cli import _LIGHTNING, _parser, main
from lit_backdoor.lightning_cli import BackdoorCLI
from lit_backdoor.presets import list_configs

ROOT = Path(__file__).parent.parent
README = ROOT / "README.md"

FILES = [README, *sorted((ROOT / "lit_backdoor").rglob("README.md")), *sorted((ROOT / "tests").rglob("README.md"))]
TEXTS = {str(path.relative_to(ROOT)): path.read_text() for path in FILES if path.exists()}
pytestmark = pytest.mark.skipif(not README.exists(), reason="the tests run away from the checkout")

TINY = shlex.split(
    "--trainer.accelerator cpu --trainer.max_epochs 1 --trainer.limit_train_batches 2 --trainer.limit_val_batches 1 "
    "--data.source.init_args.train_per_class 12 --data.source.init_args.test_per_class 4"
)


def blocks(file, language):
    return re.findall(rf"^```{language}\n(.*?)^```", TEXTS[file], re.M | re.S)


def commands(file):
    parts = [part.strip() for block in blocks(file, "sh") for line in block.splitlines() for part in line.split("&&")]
    return [part for part in parts if part.partition(" ")[0] in ("lit-backdoor", "torchrun", "srun")]


def arguments(line):
    words = shlex.split(line, comments=True)
    start = next(number for number, word in enumerate(words) if word in ("lit-backdoor", "lit_backdoor"))
    return words[start + 1 :]


LINES = [(file, line) for file in TEXTS for line in commands(file)]
STAGES = [(file, line) for file, line in LINES if arguments(line)[0] in _LIGHTNING]
OTHERS = [entry for entry in LINES if entry not in STAGES]
ALONE = [line for _, line in STAGES if "signs.yaml" in line and "devices" not in line and "--ckpt_path" not in line]
RESUMING = [line for _, line in STAGES if "--ckpt_path" in line]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("signs.yaml").write_text(
        next(block for block in blocks("lit_backdoor/chain/README.md", "yaml") if "seed_everything" in block)
    )
    return tmp_path


def test_the_first_page_is_short_and_has_the_two_commands():
    assert len(README.read_bytes()) <= 12_000
    lines = [line for block in blocks("README.md", "sh") for line in block.splitlines()]
    assert lines[:2] == ["pip install . && lit-backdoor demo", 'pip install ".[test]" && pytest']


@pytest.mark.parametrize("file", [file for file in TEXTS if blocks(file, "python")])
def test_python_runs_in_order(file, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    namespace = {}
    for number, block in enumerate(blocks(file, "python")):
        exec(compile(block, f"{file}, Python block {number}", "exec"), namespace)


@pytest.mark.parametrize(("file", "line"), OTHERS, ids=str)
def test_chains_grids_and_lists_are_known(file, line, capsys):
    given = _parser().parse_args(arguments(line))
    command = arguments(line)[0]
    if command == "chain" and not given.name.endswith(".yaml"):
        compose(given.name, given.settings, given.seed, setup=given.setup, attack=given.attack)
    elif command == "grid" and not given.name.endswith(".yaml"):
        assert read_grid(given.name).cells
    elif command == "list":
        assert main(arguments(line)) == 0, capsys.readouterr().err


@pytest.mark.filterwarnings("ignore")
def test_stages_run_one_at_a_time(folder):
    assert [arguments(line)[0] for line in ALONE] == ["fit", "predict", "fit", "fit", "test"]
    for line in ALONE:
        assert main(arguments(line) + TINY) == 0, line
    assert {path.name for path in Path("out").iterdir()} == {"victim", "select", "generate", "clean"}
    written = next(Path("lightning_logs/version_0").rglob("*.ckpt"))
    for line in RESUMING:
        words = arguments(re.sub(r"(?<=--ckpt_path )\S+", str(written), line))
        assert main([*words, *TINY, "--trainer.max_epochs", "2"]) == 0, line


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("file", "line"), STAGES, ids=str)
def test_commands_of_stages_parse(file, line, folder, monkeypatch):
    monkeypatch.setattr(BackdoorCLI, "instantiate_classes", lambda self: None)
    words = [word for word in arguments(line) if not word.endswith(".ckpt")]
    words = [word for word in words if word != "--ckpt_path"]
    if words[0] == "test":
        words = words[: words.index("--bundle")]  # the bundle says which evaluation it is
        words += ["--model", "lit_backdoor.stages.Evaluation", "--model.bundle", "out/clean"]
    assert BackdoorCLI(words, run=False).config[words[0]].data


def test_a_chain_of_ones_own_composes(folder):
    own = next(block for block in blocks("lit_backdoor/chain/README.md", "yaml") if "mine.Stripe" in block)
    Path("mine.yaml").write_text(own)
    for file in ("attacks", "defenses"):
        with Path("mine.py").open("a") as code:
            code.write(blocks(f"lit_backdoor/{file}/README.md", "python")[0])
    chain = compose("mine.yaml")
    assert set(chain["stages"]) == {"victim", "clean", "control"}
    assert chain["stages"]["clean"]["model"]["class_path"] == "mine.FreshHead"


def test_a_setup_of_ones_own_composes(folder):
    own = next(block for block in blocks("lit_backdoor/chain/README.md", "yaml") if "my_net.Net" in block)
    Path("photos.yaml").write_text(own)
    chain = compose("fine_tune", setup="photos.yaml")
    assert chain["data"]["init_args"]["source"]["init_args"]["train"] == "photos/train"
    net = chain["stages"]["victim"]["model"]["init_args"]["classifier"]
    assert net["init_args"]["factory"] == "my_net.Net"
    assert "channels" not in net["init_args"]  # the net of signs is gone


def first_column(file):
    rows = [line for line in TEXTS[file].splitlines() if line.startswith("| `")]
    return {name for row in rows for name in re.findall(r"`([^`]+)`", row.split("|")[1])}


def test_every_attack_of_the_table_is_there():
    assert first_column("lit_backdoor/attacks/README.md") <= set(list_configs("attacks"))


def test_every_folder_of_defenses_has_its_page_and_every_method_is_named():
    folders = {path.parent.name for path in (ROOT / "lit_backdoor" / "defenses").glob("*/__init__.py")}
    assert folders == {path.parent.name for path in (ROOT / "lit_backdoor" / "defenses").glob("*/README.md")}
    pages = "\n".join(text for file, text in TEXTS.items() if "/defenses/" in file)
    missing = {key for key in list_configs("defenses") if "/" not in key and f"`{key}`" not in pages}
    assert not missing


@pytest.mark.parametrize("file", TEXTS)
def test_every_class_named_is_there(file):
    public = {"LightningCLI"}
    for info in pkgutil.walk_packages(lit_backdoor.__path__, "lit_backdoor."):
        if not info.name.endswith("__main__"):
            public.update(getattr(importlib.import_module(info.name), "__all__", ()))
    named = set(re.findall(r"`([A-Z][a-z]+(?:[A-Z][A-Za-z]*)?)\b", TEXTS[file]))
    own = set(re.findall(r"^class (\w+)", TEXTS[file], re.M))
    assert named - public - own == set()


def anchors(text):
    titles = re.findall(r"^#+ (.+)$", text, re.M)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("file", TEXTS)
def test_every_link_inside_leads_somewhere(file):
    for target in re.findall(r"\]\((?!http)([^)]+)\)", TEXTS[file]):
        path, _, anchor = target.partition("#")
        found = (ROOT / file).parent / path if path else ROOT / file
        assert found.exists(), target
        if anchor:
            assert anchor in anchors(found.read_text()), target
