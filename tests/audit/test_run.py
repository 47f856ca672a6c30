"""Whole audits: what is written, what is left out, how it ends."""

import io
import json
import math
import os
import re
import sys

import pytest
import torch
from audit_parts import OPTIONS, OUTPUTS, bands, classes_file, image_folder, saved

from lit_backdoor.audit import bench, run_audit
from lit_backdoor.audit import run as running
from lit_backdoor.audit.detectors import DETECTORS, Finding
from lit_backdoor.bundle import open_bundle
from lit_backdoor.chain.compose import compose
from lit_backdoor.cli import main

SHORT = {
    "tac/detect": [],
    "btidbf_u/invert": [
        "stages.invert.model.init_args.decoupling={epochs: 1}",
        "stages.invert.model.init_args.inversion={epochs: 1}",
        "stages.invert.model.init_args.generator={class_path: lit_backdoor.models.UNet, init_args: {base: 4, downs: 2}}",
    ],
    "nc/detect": ["stages.detect.trainer.max_epochs=2", "stages.detect.model.init_args.cost={threshold: 0.01}"],
    "pixel/detect": ["stages.detect.trainer.max_epochs=2", "stages.detect.model.init_args.cost={threshold: 0.01}"],
    "martini/detect": [
        "stages.decoder.trainer.max_epochs=1",
        "stages.decoder.model.init_args.encoder.init_args={width: 4}",
        "stages.detect.model.init_args.reconstruction={epochs: 1}",
    ],
}


@pytest.fixture(scope="module")
def mine(tmp_path_factory):
    """A model, its images and the options that they need."""
    folder = tmp_path_factory.mktemp("mine")
    outputs = classes_file(folder / "outputs.json")
    return saved(folder / "net.safetensors"), image_folder(folder / "images"), {**OPTIONS, "classes": outputs}


def words(mine, out, **more):
    """The arguments of the command."""
    model, images, options = mine
    given = {**options, **more, "data": images, "out": out}
    said = {key.replace("_", "-"): value if isinstance(value, list) else [value] for key, value in given.items()}
    return ["audit", model, *(str(word) for key, values in said.items() for word in (f"--{key}", *values))]


@pytest.fixture(scope="module")
def audited(mine, tmp_path_factory):
    """An audit with every detector, cut short."""

    def shortened(name, settings, *args, **options):
        return compose(name, [*settings, *SHORT[name]], *args, **options)

    out = tmp_path_factory.mktemp("audited") / "out"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LIT_BACKDOOR_CACHE", str(tmp_path_factory.mktemp("store")))
        patch.setattr(bench, "compose", shortened)
        patch.setattr(running, "decide", lambda *given: "suspicious")
        code = main(words(mine, out, budget="100h", seed=3))
    return out, code, json.loads((out / "audit.json").read_text())


@pytest.mark.slow
def test_every_detector_runs_as_a_chain(audited):
    out, code, audit = audited
    assert [(each["name"], each["status"]) for each in audit["detectors"]] == [(d.name, "ran") for d in DETECTORS]
    assert (code, audit["format"], audit["verdict"], audit["complete"]) == (1, 1, "suspicious", True)
    for each in DETECTORS:
        results = json.loads((out / "detectors" / each.name / "results.json").read_text())
        assert (results["chain"], results["seed"], results["data"]["attack"]) == (each.chain, 3, None)
        assert results["stages"][0]["metrics"]["acc"] == audit["accuracy"] == 1
        assert "asr" not in results["stages"][0]["metrics"]


def test_record_has_a_number_for_each_class(audited):
    audit = audited[2]
    for each in audit["detectors"]:
        assert len(each["statistics"]) == 4
        assert each["seconds"] > 0
    [inverted] = [each for each in audit["detectors"] if each["name"] == "btidbf"]
    missed = max(1 - max(inverted["statistics"]), 1 / audit["data"]["images"])
    assert inverted["score"] == pytest.approx(-math.log10(missed))
    assert audit["model"]["class_names"] == ["top", "upper", "lower", "bottom"]
    assert audit["data"]["images_per_class"] == [8] * 4
    assert {label for target in audit["targets"] for label in [target["class"]]} == {
        label for each in audit["detectors"] for label in each["flagged"]
    }


def test_model_of_the_chains_knows_no_attack(audited):
    out, _, audit = audited
    bundle = open_bundle(out / "suspect", "suspect")
    assert bundle.info["attack"] is None
    assert bundle.hash == audit["model"]["hash"]
    weights = bundle._read()
    assert all(torch.equal(weights[f"model.net.{key}"], value) for key, value in bands().state_dict().items())


def test_page_needs_nothing_from_elsewhere_and_shows_triggers(audited):
    page = (audited[0] / "audit.html").read_text()
    said = re.sub(r"data:image/png;base64,[\w+/=]+", "picture", page)
    assert "://" not in said
    assert "<script" not in said
    assert said.count("picture") >= 3 * 3  # an inversion at least, on three images of other classes
    assert said.count('class="chart swarm"') >= 2
    assert "Suspicious" in said
    assert not re.search(r"\bsafe\b", said.lower())


def test_budget_that_is_too_small_leaves_detectors_out(mine, tmp_path, monkeypatch):
    model, images, options = mine
    monkeypatch.setattr(bench.Bench, "speed", lambda self: 100.0)
    monkeypatch.setattr(bench.Bench, "_chain", lambda self, detector: 1 / 0)
    audit = run_audit(model, images, tmp_path / "out", budget=120.0, **options)
    statuses = {each["name"]: each["status"] for each in audit["detectors"]}
    assert statuses == {
        "tac": "failed",
        "btidbf": "left out",
        "nc": "left out",
        "pixel": "left out",
        "martini": "left out",
    }
    assert "ZeroDivisionError" in audit["detectors"][0]["reason"]
    assert audit["detectors"][2]["reason"].startswith("It needs about 402 s, 11")
    assert (audit["verdict"], audit["complete"], audit["probability"]) == (None, False, None)


def faked(monkeypatch, *flagged, fail=()):
    """Let the detectors say what the test says; those after the last are left out."""

    def run(self, detector, left, speed):
        place = DETECTORS.index(detector)
        if detector.name in fail:
            return Finding(detector, "failed", reason="ValueError: broken")
        if place >= len(flagged):
            return Finding(detector, "left out", reason="no time")
        return Finding(detector, "ran", 1.0, statistics=(1.0, 2.0, 3.0, 4.0), score=0.5, flagged=flagged[place], top=0)

    monkeypatch.setattr(running, "read_reference", list)  # the detectors' own decisions count
    monkeypatch.setattr(bench.Bench, "run", run)
    monkeypatch.setattr(bench.Bench, "speed", lambda self: 1000.0)


@pytest.mark.parametrize(
    ("flagged", "more", "verdict", "code"),
    [
        (((), ()), {}, "clean", 0),
        (((2,), ()), {}, "suspicious", 1),
        (((2,), ()), {"fail_on": "backdoored"}, "suspicious", 0),
        (((2,), (2,)), {"fail_on": "backdoored"}, "backdoored", 1),
    ],
)
def test_exit_code_is_the_verdict(mine, tmp_path, monkeypatch, capsys, flagged, more, verdict, code):
    faked(monkeypatch, *flagged)
    assert main(words(mine, tmp_path / "out", **more)) == code
    assert json.loads((tmp_path / "out" / "audit.json").read_text())["verdict"] == verdict
    assert f"verdict  {verdict}" in capsys.readouterr().out
    assert verdict.capitalize() in (tmp_path / "out" / "audit.html").read_text()


@pytest.mark.parametrize(
    ("flagged", "lines"),
    [
        (((2,), ()), ["TAC: ran in 1 s, flags 'lower'", "BTI-DBF: ran in 1 s, flags 'lower'"]),
        (
            ((), (), (2,)),
            [
                "TAC: ran in 1 s, flags no class",
                "BTI-DBF: ran in 1 s, flags no class yet: its trigger leads to 'lower', which counts if another one "
                "flags it",
                "Neural Cleanse: ran in 1 s, flags 'lower'",
                "BTI-DBF: flags 'lower' as well",
            ],
        ),
    ],
)
def test_lines_say_of_the_inversion_what_the_summary_says(mine, tmp_path, monkeypatch, flagged, lines):
    faked(monkeypatch, *flagged)
    plain = bench.Bench.run

    def run(self, detector, left, speed):
        finding = plain(self, detector, left, speed)
        finding.top, finding.score, finding.statistics = 2, 0.95, (0.0, 0.0, 0.95, 0.05)
        return finding

    monkeypatch.setattr(bench.Bench, "run", run)
    said = []
    audit = run_audit(mine[0], mine[1], tmp_path / "out", say=said.append, **mine[2])
    assert [line for line in said if ": ran in" in line or "as well" in line] == lines
    assert "btidbf" in audit["targets"][0]["detectors"]


def test_bundle_of_a_foreign_net_needs_trust(audited, mine, tmp_path, capsys):
    words = ["audit", str(audited[0] / "suspect"), "--data", mine[1], "--out", str(tmp_path / "out"), "--budget", "1s"]
    assert main(words) == 2
    assert "name its package with trust= or --trust" in capsys.readouterr().err
    assert main([*words, "--trust", "audit_parts"]) == 2
    assert "there is no verdict. Give a larger --budget." in capsys.readouterr().err


def test_audit_is_not_written_among_the_images(mine, capsys):
    assert main(words(mine, f"{mine[1]}/audit")) == 2
    assert "Expected --out outside the folder of the images" in capsys.readouterr().err


def test_others_go_on_where_a_detector_fails(mine, tmp_path, monkeypatch):
    faked(monkeypatch, (), (), (1,), fail=("tac",))
    assert main(words(mine, tmp_path / "out")) == 1
    audit = json.loads((tmp_path / "out" / "audit.json").read_text())
    assert [each["status"] for each in audit["detectors"][:2]] == ["failed", "ran"]
    assert (audit["verdict"], audit["complete"]) == ("suspicious", False)
    assert "ValueError: broken" in (tmp_path / "out" / "audit.html").read_text()


def test_no_verdict_is_an_error(mine, tmp_path, monkeypatch, capsys):
    faked(monkeypatch, fail=[each.name for each in DETECTORS])
    assert main(words(mine, tmp_path / "out")) == 2
    assert "No detector could say anything" in capsys.readouterr().err


@pytest.mark.parametrize("error", [RuntimeError("bug"), MemoryError(), ValueError("Expected better")])
def test_crash_is_an_error_and_leaves_no_verdict_not_even_an_older_one(mine, tmp_path, monkeypatch, capsys, error):
    faked(monkeypatch, ())
    assert main(words(mine, tmp_path / "out")) == 0

    def crash(*args):
        raise error

    monkeypatch.setattr(running, "write_page", crash)
    assert main(words(mine, tmp_path / "out")) == 2
    assert not (tmp_path / "out" / "audit.json").exists()
    assert str(error) in capsys.readouterr().err


def test_folder_of_others_is_not_touched(mine, tmp_path, capsys):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "audit.json").write_text("mine")
    assert main(words(mine, tmp_path / "out")) == 2
    assert "which holds 'audit.json'" in capsys.readouterr().err
    assert (tmp_path / "out" / "audit.json").read_text() == "mine"


@pytest.mark.parametrize(
    ("more", "says"),
    [
        ({"budget": "soon"}, "Expected --budget such as 90s, 4m or 1h, got 'soon'"),
        ({"budget": "0s"}, "Expected --budget"),
        ({"threads": 0}, "--threads from 1 to"),
        ({"threads": 10**6}, "the CPUs of this machine, got 1000000"),
        ({"arch": "audit_parts.nothing"}, "nothing"),
        ({"size": 8}, "Check --arch, --classes and --size"),
    ],
)
def test_wrong_options_are_errors_of_one_line(mine, tmp_path, capsys, more, says):
    assert main(words(mine, tmp_path / "out", **more)) == 2
    error = capsys.readouterr().err
    assert says in error
    assert "Traceback" not in error
    assert not (tmp_path / "out").exists()


def test_unknown_detector_is_refused(mine, tmp_path):
    with pytest.raises(ValueError, match="Unknown detector 'tact'. Did you mean 'tac'"):
        run_audit(mine[0], mine[1], tmp_path / "out", detectors=["tact"], **mine[2])


def test_model_of_two_classes_is_refused(mine, tmp_path):
    from audit_parts import Bands

    path = saved(tmp_path / "two.safetensors", Bands(2))
    with pytest.raises(ValueError, match="at least 3 classes, got 2"):
        run_audit(path, mine[1], tmp_path / "out", **OPTIONS)


def test_bundle_brings_its_names(audited, mine, tmp_path, monkeypatch):
    faked(monkeypatch, ())
    from lit_backdoor.recipe import trusting

    with trusting(["audit_parts"]):
        audit = run_audit(audited[0] / "suspect", mine[1], tmp_path / "out")
    assert audit["accuracy"] == 1
    assert audit["data"]["images_per_class"] == [8] * 4


def test_outputs_without_images_are_said(mine, tmp_path, monkeypatch):
    faked(monkeypatch, ())
    images = image_folder(tmp_path / "some", 10, ("top", "lower"))
    audit = run_audit(mine[0], images, tmp_path / "out", **{**mine[2], "classes": OUTPUTS})
    assert audit["data"]["classes"] == 2
    assert any("2 of 4 classes have fewer than 2 images" in note for note in audit["notes"])


def test_names_that_a_terminal_cannot_show_are_escaped(mine, tmp_path, monkeypatch):
    faked(monkeypatch, (2,))
    images = tmp_path / "images"
    image_folder(images)
    odd = os.fsdecode(b"caf\xe9")
    (images / "lower").rename(images / odd)
    outputs = classes_file(tmp_path / "odd.json", {**{k: v for k, v in OUTPUTS.items() if k != "lower"}, odd: 2})
    terminal = io.TextIOWrapper(io.BytesIO(), "ascii")
    monkeypatch.setattr(sys, "stdout", terminal)
    model, _, options = mine
    assert main(words((model, str(images), {**options, "classes": outputs}), tmp_path / "out")) == 1
    assert b"flags 'caf\\udce9'" in terminal.buffer.getvalue()


@pytest.mark.parametrize("code", [0, 1])
def test_exit_of_the_users_module_is_no_verdict(mine, tmp_path, monkeypatch, capsys, code):
    monkeypatch.chdir(tmp_path)
    name = f"exits_with_{code}"
    (tmp_path / f"{name}.py").write_text(f"import sys\nsys.exit({code})")
    assert main(words(mine, tmp_path / "out", arch=f"{name}.Net")) == 2
    assert f"cannot be imported (SystemExit: {code})" in capsys.readouterr().err
    monkeypatch.setattr(bench.Bench, "speed", lambda self: sys.exit(code))
    assert main(words(mine, tmp_path / "out")) == 2
    assert f"Something ended the audit by exit code {code}, so there is no verdict" in capsys.readouterr().err


def test_folder_of_a_chain_is_not_mixed_with(audited, mine, capsys):
    chain = audited[0] / "detectors" / "tac"
    held = sorted(path.name for path in chain.iterdir())
    assert main(words(mine, chain)) == 2
    assert "got that of a chain" in capsys.readouterr().err
    assert sorted(path.name for path in chain.iterdir()) == held
