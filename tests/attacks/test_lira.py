"""LIRA: what each net learns from, and that the trained trigger is the attack wherever it is used."""

import json
import re

import pytest
import tiny
import torch
from torch.nn import functional as F

from lit_backdoor.attacks import LIRATraining
from lit_backdoor.bundle import open_bundle
from lit_backdoor.chain.compose import compose
from lit_backdoor.chain.run import ChainRun
from lit_backdoor.cli import main
from lit_backdoor.stages import Evaluation, PoisonedTraining
from lit_backdoor.triggers import Attack, GeneratorTrigger


def fast(parameters):
    return torch.optim.SGD(parameters, lr=0.05)


def attack(seed=0, **options):
    trigger = GeneratorTrigger(tiny.unet(seed))
    return Attack(trigger, **{"target": 0, "rate": None, **options})


def training(**options):
    return LIRATraining(tiny.classifier(), **{"optimizer": fast, "schedule": "constant", **options})


def test_the_trigger_is_trained_in_the_first_epochs_only_and_the_classifier_throughout(tmp_path):
    moved = []

    class Watch(tiny.pl.Callback):
        def on_train_epoch_start(self, trainer, stage):
            self.before = tiny.tensors(stage.trigger), tiny.tensors(stage.classifier)

        def on_train_epoch_end(self, trainer, stage):
            trigger, classifier = self.before
            moved.append((bool(tiny.moved(trigger, tiny.tensors(stage.trigger))),
                          bool(tiny.moved(classifier, tiny.tensors(stage.classifier)))))  # fmt: skip

    tiny.fit(training(joint=0.5), tiny.data(attack()), max_epochs=2, callbacks=[Watch()])
    assert moved == [(True, True), (False, True)]


def test_losses_are_those_of_the_paper():
    stage, data = training(clean=0.3), tiny.data(attack())
    tiny.fit(stage, data, max_epochs=1, limit_train_batches=1)
    images, labels = torch.rand(6, 3, 16, 16), torch.arange(6) % 4
    batch = {"image": images, "label": labels, "index": torch.arange(6)}
    stage.eval()
    stage.begin_epoch()
    found = stage.losses(batch)
    stamped = stage.trigger(images, torch.arange(6))
    clean = F.cross_entropy(stage.classifier(images), labels)
    backdoor = F.cross_entropy(stage.classifier(stamped), torch.zeros_like(labels))
    torch.testing.assert_close(found["loss"], 0.3 * clean + 0.7 * backdoor)


def test_validation_sees_the_trigger_as_it_is_trained():
    data = tiny.data(attack())
    stage = tiny.fit(training(), data)
    assert data.trigger is stage.trigger


def test_a_run_that_resumes_equals_one_that_was_not_stopped(tmp_path):
    whole, parts = training(), training()
    checkpoint = tiny.pl.callbacks.ModelCheckpoint(dirpath=tmp_path, save_top_k=-1, filename="{epoch}")
    tiny.fit(whole, tiny.data(attack()), max_epochs=4, callbacks=[checkpoint], enable_checkpointing=True)
    tiny.trainer(max_epochs=4, limit_val_batches=0).fit(
        parts, datamodule=tiny.data(attack()), ckpt_path=tmp_path / "epoch=1.ckpt", weights_only=True
    )
    for name, value in tiny.tensors(whole).items():
        assert torch.equal(value, parts.state_dict()[name]), name


def test_a_trigger_without_weights_is_refused():
    with pytest.raises(ValueError, match="nothing to train"):
        tiny.fit(training(), tiny.data(tiny.attack()))


def test_no_attack_is_refused():
    with pytest.raises(ValueError, match=r"data\.attack to be set"):
        tiny.fit(training(), tiny.data())


def test_an_attack_without_a_rate_is_not_planted():
    with pytest.raises(ValueError, match="rate"):
        tiny.fit(PoisonedTraining(tiny.classifier()), tiny.data(attack()))


def by_hand(suspect, trigger, target=0):
    """ASR by a loop of a few lines over the test part of the drawn signs."""
    from lit_backdoor.data import SyntheticSigns

    rows = SyntheticSigns(**tiny.SIGNS["init_args"]).test()
    kept = (rows.labels != target).nonzero().flatten()
    images = rows.images(kept).float() / 255
    with torch.no_grad():
        return float((suspect(trigger(images, kept)).argmax(1) == target).float().mean())


@pytest.mark.slow
def test_every_asr_is_that_of_the_trained_trigger(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("LIT_BACKDOOR_CACHE", str(tmp_path / "cache"))
    settings = tiny.chain()
    settings["data"]["init_args"]["attack"] = {
        "class_path": "lit_backdoor.triggers.Attack",
        "init_args": {
            "trigger": {
                "class_path": "lit_backdoor.triggers.GeneratorTrigger",
                "init_args": {"generator": {"class_path": "lit_backdoor.models.UNet",
                                            "init_args": {"base": 4, "downs": 2, "start": "random", "bound": 0.15}}},
            },
            "rate": 0.1,
        },
    }  # fmt: skip
    adam = {"class_path": "torch.optim.Adam", "init_args": {"lr": 0.005}}
    settings["stages"]["victim"] = {
        "model": {"class_path": "lit_backdoor.attacks.LIRATraining",
                  "init_args": {"classifier": tiny.NET, "trigger_optimizer": adam, "optimizer": adam, "clean": 0.7}},
        "trainer": {"max_epochs": 12},
    }  # fmt: skip
    file = tmp_path / "lira.yaml"
    file.write_text(json.dumps(settings))
    out = tmp_path / "out"
    results = ChainRun(compose(str(file)), "lira", out).run()

    victim, cleaned = open_bundle(out / "victim"), open_bundle(out / "clean")
    trigger = victim.attack().trigger
    torch.manual_seed(5)
    untrained = GeneratorTrigger(tiny.unet(start="random")).eval()
    by_stage = {stage["name"]: stage["metrics"].get("asr") for stage in results["stages"]}
    for name, bundle in (("victim", victim), ("clean", cleaned)):
        assert by_stage[name] == pytest.approx(by_hand(bundle.build(), trigger), abs=1e-6)
        assert tiny.tensors(bundle.attack().trigger).keys() == tiny.tensors(trigger).keys()
        for key, value in tiny.tensors(trigger).items():
            assert torch.equal(tiny.tensors(bundle.attack().trigger)[key], value)
    assert by_stage["victim"] > by_hand(victim.build(), untrained) + 0.03  # else the test could not tell them apart

    data = tmp_path / "data.yaml"
    data.write_text(
        json.dumps({"data": {**settings["data"], "init_args": {**settings["data"]["init_args"], "seed": 5}}})
    )
    assert main(["test", "--bundle", str(out / "clean"), "--config", str(data), "--trainer.logger=false",
                 "--trainer.accelerator=cpu", f"--trainer.default_root_dir={tmp_path}"]) == 0  # fmt: skip
    said = capsys.readouterr().out
    printed = [float(word) for word in re.findall(r"\d\.\d{4,}", said)]
    assert any(value == pytest.approx(by_stage["clean"], abs=1e-6) for value in printed)


def test_another_attack_than_the_suspects_is_refused(tmp_path):
    from lit_backdoor.bundle import save_bundle

    save_bundle(tmp_path / "suspect", kind="suspect", module=tiny.classifier(), attack=attack(1, rate=0.1))
    with pytest.raises(ValueError, match=r"Set data\.attack="):
        tiny.tested(Evaluation(str(tmp_path / "suspect")), tiny.data(attack(2, rate=0.1)))
