"""Models from outside are cleaned and come back in the form that they came in."""

import json
import shutil

import pytest
import torch
from purify_parts import ARCH, NAMES, Foreign, Gray, trained, write_images

from lit_backdoor.bundle import save_bundle
from lit_backdoor.cli import main
from lit_backdoor.models import Purified, load_classifier
from lit_backdoor.purify import purify

SHORT = ["--with", "fine_tune", "--set", "stages.control.steps=2"]
READ = {"arch": ARCH, "size": 16}


@pytest.fixture(scope="module")
def net():
    return trained(Foreign())


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_images(tmp_path_factory.mktemp("images"))


@pytest.fixture
def model(tmp_path, net):
    """A checkpoint as trainings write it, in half precision."""
    state = {f"module.{k}": v.half() if v.is_floating_point() else v for k, v in net.state_dict().items()}
    torch.save({"epoch": 7, "state_dict": state, "best": 0.9}, tmp_path / "w.pth")
    return tmp_path / "w.pth"


def command(model, folder, out, *more):
    return ["purify", str(model), "--data", str(folder), "--out", str(out), "--arch", ARCH, "--size", "16", *more]


def report(out):
    return json.loads(out.with_name(f"{out.name}.purify").joinpath("purify.json").read_text())


def test_checkpoint_comes_back_for_the_code_that_loaded_it(model, folder, tmp_path, net, capsys):
    out, before = tmp_path / "new.pth", model.read_bytes()
    assert main(command(model, folder, out, *SHORT)) == 0
    said = capsys.readouterr().out
    old, new = (torch.load(path, weights_only=True) for path in (model, out))
    assert model.read_bytes() == before
    assert (new["epoch"], new["best"]) == (7, 0.9)
    assert {k: v.dtype for k, v in old["state_dict"].items()} == {k: v.dtype for k, v in new["state_dict"].items()}
    cleaned = Foreign()
    cleaned.load_state_dict({k.removeprefix("module."): v for k, v in new["state_dict"].items()}, strict=True)
    assert not torch.equal(cleaned.fc.weight, net.fc.weight.half().float())
    found = report(out)
    assert found["before"]["acc"] > 0.9
    assert f"ACC {found['before']['acc']:.3f} before, {found['after']['acc']:.3f} after, on 24 held-out images" in said
    assert (found["data"]["root"], found["data"]["held_out"]) == (72, 24)
    assert (found["defense"], found["target"], found["written"]["form"]) == ("fine_tune", None, "file")
    results = json.loads((tmp_path / "new.pth.purify" / "chain" / "results.json").read_text())
    assert results["summary"]["before"] == {"acc": pytest.approx(found["before"]["acc"]), "acc_target": None,
                                            "asr": None, "ra": None}  # fmt: skip

    assert main(command(model, folder, out, *SHORT)) == 2  # nothing is written over
    assert "Expected nothing at" in capsys.readouterr().err
    cleaned = out.read_bytes()
    out.unlink()
    assert main(command(model, folder, out, *SHORT)) == 0
    assert out.read_bytes() == cleaned
    results = json.loads((tmp_path / "new.pth.purify" / "chain" / "results.json").read_text())
    assert {stage["status"] for stage in results["stages"]} == {"cached"}


def test_a_defense_that_adds_a_module_gives_a_bundle(model, folder, tmp_path, capsys):
    out = tmp_path / "new"
    assert main(command(model, folder, out, "--with", "shrink_pad", "--trust", ARCH)) == 0
    assert "adds a module (Purified)" in capsys.readouterr().out
    assert report(out)["written"] == {"path": str(out), "form": "bundle", "adds": "Purified", "left": []}
    from lit_backdoor.recipe import trusting

    with trusting([ARCH]):
        assert isinstance(load_classifier(out), Purified)


def test_bundle_comes_back_as_a_bundle(model, folder, tmp_path):
    classifier = load_classifier(model, ARCH, size=16)
    save_bundle(tmp_path / "b", kind="suspect", module=classifier, meta={"class_names": list(NAMES)})
    found = purify(tmp_path / "b", folder, tmp_path / "new", defense="fine_tune", trust=[ARCH],
                   settings=["stages.control.steps=1"])  # fmt: skip
    assert found["written"]["form"] == "bundle"
    assert found["written"]["adds"] is None
    info = json.loads((tmp_path / "new" / "bundle.json").read_text())
    assert info["class_names"] == list(NAMES)


def test_gray_net_in_safetensors(folder, tmp_path):
    from safetensors.torch import load_file, save_file

    state = trained(Gray()).state_dict()
    save_file(state, tmp_path / "w.safetensors", {"from": "me"})
    found = purify(tmp_path / "w.safetensors", folder, tmp_path / "new.safetensors", defense="fine_tune",
                   settings=["stages.control.steps=1"], arch=f"{Gray.__module__}.Gray", size=16)  # fmt: skip
    assert found["before"]["acc"] > 0.9
    Gray().load_state_dict(load_file(tmp_path / "new.safetensors"), strict=True)


def test_target_is_given_by_name_to_the_stages_that_take_one(model, folder, tmp_path):
    short = ["stages.sanitize.steps=2", "stages.sanitize.model.init_args.average_steps=1",
             "stages.sanitize.model.init_args.search.steps=2"]  # fmt: skip
    found = purify(model, folder, tmp_path / "new.pth", defense="pgbd_stamps", target="cow", settings=short, **READ)
    assert found["target"] == {"class": 2, "name": "cow"}
    assert found["after"]["acc_target"] is not None
    stage = (tmp_path / "new.pth.purify" / "chain" / ".runs" / "sanitize" / "stage.yaml").read_text()
    assert "target: 2" in stage


def audited(monkeypatch, *audits):
    """Let audits have found these."""
    calls, found = [], iter(audits)

    def run_audit(model, data, out, **options):
        calls.append((model, options))
        return next(found)

    monkeypatch.setattr("lit_backdoor.audit.run_audit", run_audit)
    return calls


def test_auto_leaves_a_suspect_as_it_is_in_which_nothing_was_found(model, folder, tmp_path, monkeypatch, capsys):
    audited(monkeypatch, {"verdict": "clean", "targets": [], "probability": 0.1})
    assert main(command(model, folder, tmp_path / "new.pth")) == 0
    assert "stays as it is: the audit found nothing. To clean it all the same" in capsys.readouterr().out
    assert not (tmp_path / "new.pth").exists()
    found = report(tmp_path / "new.pth")
    assert (found["defense"], found["after"], found["audit"]["verdict"]) == (None, None, "clean")


def test_auto_takes_the_defense_for_the_target_and_audits_again(model, folder, tmp_path, monkeypatch):
    bad = {"verdict": "backdoored", "targets": [{"class": 1, "detectors": ["tac", "nc"]}], "probability": 0.9}
    calls = audited(monkeypatch, bad, {"verdict": "clean", "targets": [], "probability": 0.1})
    short = ["stages.sanitize.steps=1", "stages.sanitize.model.init_args.average_steps=1",
             "stages.sanitize.model.init_args.search.steps=1"]  # fmt: skip
    found = purify(model, folder, tmp_path / "new.pth", settings=short, budget=9.0, **READ)
    assert (found["defense"], found["target"]["name"]) == ("pgbd_stamps_anchored", "bee")
    assert (found["audit"]["verdict"], found["audit_after"]["verdict"]) == ("backdoored", "clean")
    assert str(calls[0][0]) == str(model)
    assert calls[1][0] != model
    assert all(call[1]["budget"] == 9.0 and call[1]["arch"] == ARCH for call in calls)


# Bad input.


def test_what_is_missing_is_said_with_both_ways_on(model, folder, tmp_path, capsys):
    for more, says in (
        (["--with", "atclean"], ("needs the questioned training set", "--with pgbd_nt_stamps", "--setup FILE")),
        (["--with", "pgbd_stamps"], ("Expected the target class", "--target CLASS", "--with auto")),
        (["--target", "1"], ("no --target with --with auto",)),
        (["--with", "fine_tune", "--target", "1"], ("which takes none",)),
        (["--with", "pgbd_stamps", "--target", "owl"], ("from 0 to 3 or a name (ape, bee, cow, dog), got 'owl'",)),
        (["--with", "pgbdd"], ("Did you mean 'pgbd'",)),
        (["--with", "martini/detect"], ("changes none",)),
        (["--budget", "soon"], ("Expected --budget",)),
    ):
        assert main(command(model, folder, tmp_path / "new.pth", *more)) == 2
        error = capsys.readouterr().err
        assert "Traceback" not in error
        for text in says:
            assert text in error
        assert not (tmp_path / "new.pth").exists()
        shutil.rmtree(tmp_path / "new.pth.purify", ignore_errors=True)


def test_images_that_do_not_serve(model, tmp_path, capsys):
    one = write_images(tmp_path / "one", ("ape",) * 4)
    few = write_images(tmp_path / "few", count=5)
    many = write_images(tmp_path / "many")
    shutil.copytree(many / "ape", many / "yak")
    some = write_images(tmp_path / "some")
    shutil.rmtree(some / "ape")
    broken = write_images(tmp_path / "broken")
    (broken / "bee" / "x.png").write_bytes(b"no image")
    for folder, says in ((one, "stand for the 1 classes"), (few, "got 5 images"), (many, "4 classes, got 5"),
                         (some, "Give --classes FILE"), (broken, "x.png"), (tmp_path / "none", "found none")):  # fmt: skip
        assert main(command(model, folder, tmp_path / "new.pth", *SHORT)) == 2
        error = capsys.readouterr().err
        assert says in error
        assert "Traceback" not in error
        assert not (tmp_path / "new.pth").exists()


def test_classes_without_images_are_named_by_a_file(model, tmp_path):
    some = write_images(tmp_path / "some")
    shutil.rmtree(some / "ape")
    (tmp_path / "names.txt").write_text("\n".join(NAMES))
    found = purify(model, some, tmp_path / "new.pth", defense="fine_tune", settings=["stages.control.steps=1"],
                   classes=str(tmp_path / "names.txt"), **READ)  # fmt: skip
    assert found["before"]["acc"] > 0.9


def test_model_that_answers_one_class_always_is_refused(folder, tmp_path, capsys):
    net = Foreign()
    with torch.no_grad():
        net.fc.weight.zero_()
        net.fc.bias.copy_(torch.tensor([0.0, 0.0, 1.0, 0.0]))
    torch.save(net.state_dict(), tmp_path / "w.pth")
    assert main(command(tmp_path / "w.pth", folder, tmp_path / "new.pth", *SHORT)) == 2
    assert "answers 'cow' on every image" in capsys.readouterr().err


def test_working_folder_of_somebody_else_is_refused(model, folder, tmp_path, capsys):
    work = tmp_path / "new.pth.purify"
    work.mkdir()
    (work / "thesis.tex").write_text("mine")
    assert main(command(model, folder, tmp_path / "new.pth", *SHORT)) == 2
    assert "thesis.tex" in capsys.readouterr().err
    assert [path.name for path in work.iterdir()] == ["thesis.tex"]


def test_name_of_another_format_is_refused_before_anything_runs(model, folder, tmp_path, capsys):
    from safetensors.torch import save_file

    save_file(Foreign().state_dict(), tmp_path / "w.safetensors")
    for given, out, ends in (
        (model, "new.safetensors", ".pth"),
        (tmp_path / "w.safetensors", "new.pth", ".safetensors"),
    ):
        assert main(command(given, folder, tmp_path / out, *SHORT)) == 2
        assert f"Expected --out to end in '{ends}'" in capsys.readouterr().err
        assert not (tmp_path / f"{out}.purify").exists()


def test_safetensors_come_back_under_a_name_without_an_ending(folder, tmp_path, net):
    from safetensors.torch import load_file, save_file

    save_file(net.state_dict(), tmp_path / "w.safetensors")
    assert main(command(tmp_path / "w.safetensors", folder, tmp_path / "new", *SHORT)) == 0
    Foreign().load_state_dict(load_file(tmp_path / "new"), strict=True)


def test_result_is_not_written_among_the_images(model, folder, capsys):
    assert main(command(model, folder, folder / "new.pth", *SHORT)) == 2
    assert "outside the folder of the images" in capsys.readouterr().err
    assert not (folder / "new.pth.purify").exists()


def test_place_that_was_taken_meanwhile_is_left_and_the_result_is_named(model, folder, tmp_path, monkeypatch):
    out = tmp_path / "new.pth"
    monkeypatch.setattr(
        "lit_backdoor.purify.job.accuracy_on", lambda *given: (out.touch(), {"acc": 1.0, "acc_target": None})[1]
    )
    with pytest.raises(FileExistsError, match=r"The cleaned model is at '.*returned/new\.pth'"):
        purify(model, folder, out, defense="fine_tune", settings=["stages.control.steps=1"], **READ)
    assert out.read_bytes() == b""
    assert (tmp_path / "new.pth.purify" / "returned" / "new.pth").is_file()


def test_model_in_the_working_folder_is_not_replaced(model, folder, tmp_path, capsys):
    work = tmp_path / "new.pth.purify"
    (work / "returned").mkdir(parents=True)
    (work / ".lit-backdoor").touch()
    held = model.rename(work / "returned" / "new.pth")
    assert main(command(held, folder, tmp_path / "new.pth", *SHORT)) == 2
    assert "Expected a model outside" in capsys.readouterr().err
    assert held.is_file()
