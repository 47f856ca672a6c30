"""The choice among several generators by the votes of the first round."""

import itertools

import lightning.pytorch as pl
import pytest
import torch
from btidbf_parts import ONE, data, feature_distance, run, suspect, trainer, unet, unlearning
from lightning.pytorch.callbacks import ModelCheckpoint

from lit_backdoor.defenses.btidbf import BTIDBFInversion, InversionSettings


def test_generators_to_choose_from_are_trained_as_if_alone():
    alone = [run(unlearning(generator=net, rounds=1)) for net in (unet(seed=1), unet(seed=2))]
    both = run(unlearning(generator=[unet(seed=1), unet(seed=2)], rounds=1))
    for stage, net in zip(alone, both.generators, strict=True):
        for name, weight in stage.generator.state_dict().items():
            torch.testing.assert_close(net.state_dict()[name], weight, rtol=1e-5, atol=1e-7)
    shares = [float(stage.share) for stage in alone]
    sure = [number for number, share in enumerate(shares) if share >= 0.9]
    assert both.chosen == (sure[0] if sure else shares.index(max(shares)))
    assert float(both.share) == shares[both.chosen]
    assert both.numbers()["generator"] == "UNet"
    assert "generator" not in alone[0].numbers()


@pytest.mark.parametrize(
    ("shares", "chosen"), [((0.95, 1.0), 0), ((0.7, 0.95), 1), ((0.5, 0.6), 1), ((0.6, 0.6), 0), ((0.2, 0.91, 1.0), 1)]
)
def test_first_generator_with_nearly_all_votes_is_chosen_else_the_one_with_most(shares, chosen, monkeypatch):
    stage = unlearning(generator=[unet(seed=number) for number in range(len(shares))])
    run(stage)
    votes = iter({"target": torch.tensor(number), "share": torch.tensor(s)} for number, s in enumerate(shares))
    monkeypatch.setattr(type(stage), "_votes_of", lambda self, net: next(votes))
    stage.vote()
    assert stage.chosen == int(stage.target) == chosen
    assert stage.generator is stage.generators[chosen]


def test_default_chooses_between_a_warp_and_a_pattern():
    stage = run(unlearning(generator=None, rounds=1))
    assert [type(net).__name__ for net in stage.generators] == ["WarpField", "PatternedUNet"]


def test_a_fitted_inversion_names_its_class_and_measures_what_was_chosen(tmp_path):
    stage = BTIDBFInversion(suspect(), ONE, InversionSettings(epochs=2))
    checkpoint = ModelCheckpoint(tmp_path, filename="last")
    run = trainer(3, callbacks=[checkpoint], enable_checkpointing=True)
    run.fit(stage, datamodule=data())
    numbers = stage.numbers()
    assert 0 <= numbers["target_class"] < 4
    assert "val/feature_distance" not in run.callback_metrics  # there was no choice yet
    best = max(range(2), key=lambda number: float(stage._votes_of(stage.generators[number])["share"]))
    assert stage.chosen == best
    results = trainer(1).test(stage, datamodule=data(), verbose=False)
    found = {name: value for result in results for name, value in result.items()}["test/feature_distance"]
    assert found == pytest.approx(feature_distance(stage.generator), rel=1e-4)
    again = torch.load(tmp_path / "last.ckpt", weights_only=True)
    assert again["lit_backdoor"]["chosen"] == best
    assert int(again["state_dict"]["target"]) == numbers["target_class"]


def test_no_generator_at_all_is_an_error():
    with pytest.raises(ValueError, match="at least one generator"):
        unlearning(generator=[])


def test_chosen_generator_alone_goes_on():
    kept = []

    class Keep(pl.Callback):
        def on_train_epoch_end(self, trainer, stage):
            kept.append([next(net.parameters()).detach().clone() for net in stage.generators])

    stage = run(unlearning(generator=[unet(seed=1), unet(seed=2)]), callbacks=[Keep()])
    moved = [[not torch.equal(a, b) for a, b in zip(old, new, strict=True)] for old, new in itertools.pairwise(kept)]
    chosen = [number == stage.chosen for number in range(2)]
    none = [False, False]
    assert moved == [[True, True], [True, True], none, none, chosen, none]  # invert, invert, unlearn, mask, ...
