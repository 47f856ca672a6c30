import os
import signal
import subprocess
import sys

import pytest
from cli_parts import ROOT, refused

from lit_backdoor.cli import main
from lit_backdoor.lightning_cli import _Parser


def in_a_process(*arguments, code=""):
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [
        sys.executable,
        "-c",
        f"import sys; from lit_backdoor.cli import main; r = main({list(arguments)!r}); {code}",
    ]
    return subprocess.run(command, capture_output=True, text=True, env=environment, check=False, timeout=300)


@pytest.mark.parametrize("arguments", [["list"], ["list", "defense", "pgbd"]])
def test_list_imports_no_torch(arguments):
    done = in_a_process(*arguments, code="print([m for m in ('torch', 'lightning', 'numpy') if m in sys.modules], r)")
    assert done.stdout.strip().splitlines()[-1] == "[] 0", done.stderr


@pytest.mark.parametrize("arguments", [["--help"], ["chain", "--help"], ["demo", "--help"], ["--version"]])
def test_help_imports_no_torch(arguments):
    heavy = "print([m for m in ('torch', 'lightning', 'numpy', 'yaml') if m in sys.modules], r)"
    done = in_a_process(*arguments, code=heavy)
    assert done.stdout.strip().splitlines()[-1] == "[] 0", done.stderr


def test_help_of_a_stage_imports_nothing_that_few_methods_need():
    done = in_a_process("fit", "--help", code="print('kornia' in sys.modules, r)")
    assert done.stdout.strip().splitlines()[-1] == "False 0", done.stderr


def test_a_command_makes_no_parser_of_another(monkeypatch):
    made, make = [], _Parser.add_lightning_class_args

    def watched(self, kind, name, **options):
        made.append(name)
        return make(self, kind, name, **options)

    monkeypatch.setattr(_Parser, "add_lightning_class_args", watched)
    assert main(["validate", "--help"]) == 0
    assert made == ["trainer", "model", "data"]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ([], "COMMAND"),
        (["cahin"], "invalid choice: 'cahin'"),
        (["chain"], "NAME|FILE"),
        (["list", "attack"], "invalid choice: 'attack'"),
        (["chain", "demo", "--sed", "1"], "--sed"),
        (["chain", "demo", "--seed", "x"], "--seed"),
        (["chain", ""], "expected a text, got an empty one"),
        (["chain", "demo", "--setup", ""], "--setup: expected a text"),
        (["chain", "demo", "--until", ""], "--until: expected a text"),
        (["chain", "demo", "--launcher", "torchrun '"], "Expected --launcher as a command line"),
        (["audit", "", "--data", "photos"], "MODEL: expected a text"),
        (["purify", "net.pth", "--data", "", "--out", "o"], "--data: expected a text"),
        (["board", ""], "expected a folder, got an empty text"),
        (["board", "rows", "--out", ""], "expected a folder, got an empty text"),
        (["cache", "prune", "--larger-than", f"{'9' * 400}GB"], "such as 500MB or 20GB, got a number of 400 digits"),
        (["chain", "dmeo"], "Did you mean 'demo'"),
        (["chain", "none.yaml"], "Expected a file at 'none.yaml'"),
        (["chain", "demo", "--set", "data.init_args.attack=badnet"], "Did you mean 'badnets"),
        (["chain", "demo", "--set", "stages.victim.trainer.max_epoch=1"], "Did you mean 'max_epochs'"),
        (["chain", "demo", "--set", "data.init_args.source.class_path=lit_backdoor.data.SyntheticSings"],
         "Did you mean 'SyntheticSigns'"),
    ],
)  # fmt: skip
def test_wrong_command_line(arguments, says, capfd):
    refused(capfd, arguments, says)


def test_list_names_what_there_is(capfd):
    assert main(["list"]) == 0
    shown = capfd.readouterr().out
    for name in ("badnets", "wanet", "demo", "atclean_mixed", "lit_backdoor.data.sources.SyntheticSigns",
                 "lit_backdoor.models.TimmClassifier", "lit_backdoor.stages.FineTune"):  # fmt: skip
        assert name in shown
    for base in ("Alternating", "TriggerSearch", "SuspiciousSelection", "TargetDetection", "GeneratorTraining"):
        assert f".{base} " not in shown
    assert "lit_backdoor.stages.LowestLoss" in shown
    assert "lit_backdoor.stages.UnlearningFineTune" in shown
    assert main(["list", "attacks"]) == 0
    shown = capfd.readouterr().out
    assert "blend" in shown
    assert "demo" not in shown


def test_ctrl_c_in_a_run(monkeypatch, capfd):
    def stopped(arguments):
        try:
            raise KeyboardInterrupt
        except KeyboardInterrupt:
            sys.exit(1)  # as Lightning does

    monkeypatch.setattr("lit_backdoor.cli._lightning", stopped)
    assert main(["fit"]) == 130
    assert "stopped" in capfd.readouterr().err


def test_help_of_a_stage_s_command_says_where_stages_are_listed(capfd):
    assert main(["predict", "--help"]) == 0
    said = " ".join(capfd.readouterr().out.split())
    assert "lit-backdoor list stages, lit-backdoor list defenses" in said
    assert "lit-backdoor predict --model.help CLASS_PATH" in said


def test_list_describes_a_defense(capfd):
    assert main(["list", "defense", "pgbd_stamps"]) == 0
    shown = capfd.readouterr().out
    for said in (
        "Amula et al.",
        "the target class",
        "pgbd/paper",
        "recommended  pgbd_stamps",
        "chain pgbd_stamps --setup",
    ):
        assert said in shown
    refused(capfd, ["list", "defense", "pgbdd"], "Unknown defense 'pgbdd'. Did you mean 'pgbd'")
    refused(capfd, ["list", "defense"], "Expected a name")


def test_list_has_a_line_for_each_defense_and_none_for_attacks(capfd):
    assert main(["list", "defenses"]) == 0
    lines = capfd.readouterr().out.splitlines()[1:]
    assert len([line for line in lines if line.startswith("atclean_mixed ")]) == 1
    assert len({line.split()[0] for line in lines}) == len(lines) > 20
    assert not [line for line in lines if "daptive" in line or "blation" in line]


@pytest.mark.parametrize("arguments", [["chain", "demo", "--dry"], ["fit", "--conf", "x.yaml"], ["demo", "--se", "1"]])
def test_flags_are_written_out(arguments, capfd):
    refused(capfd, arguments, arguments[-2] if len(arguments) > 3 or arguments[0] == "demo" else "--")


def test_names_that_an_output_cannot_show_are_escaped(tmp_path, monkeypatch):
    (tmp_path / "mine.yaml").write_text("format: 1\ndescription: Gr\u00fc\u00dfe\n", encoding="utf-8")
    monkeypatch.setenv("PYTHONIOENCODING", "ascii")
    done = in_a_process("list", "defense", str(tmp_path / "mine.yaml"), code="sys.exit(r)")
    assert done.returncode == 0, done.stderr
    assert r"Gr\xfc\xdfe" in done.stdout


def test_an_output_that_nobody_reads_ends_the_command_quietly():
    reads, writes = os.pipe()
    os.close(reads)
    command = [sys.executable, "-c", "import sys; from lit_backdoor.cli import main; sys.exit(main())", "list"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, stdout=writes, stderr=subprocess.PIPE, text=True, env=environment, check=False)
    os.close(writes)
    assert (done.returncode, done.stderr) == (128 + signal.SIGPIPE, "")


@pytest.mark.parametrize(
    "error", [MemoryError(), RuntimeError("[enforce fail] . DefaultCPUAllocator: can't allocate memory")]
)
def test_too_little_memory_is_said_in_a_line(monkeypatch, capfd, error):
    def fail(given):
        raise error

    monkeypatch.setattr("lit_backdoor.cli._list", fail)
    assert "take smaller images, nets or batches" in refused(capfd, ["list"])
