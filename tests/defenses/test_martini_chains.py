"""MARTINI's configurations."""

import json

import pytest
import tiny

from lit_backdoor.chain import run_chain
from lit_backdoor.chain.compose import compose, stage_config
from lit_backdoor.chain.keys import stage_key
from lit_backdoor.presets import list_configs

CONTROLS = ("nothing_reconstructed", "decoded_only", "renormalized_only", "transformed_only")
NAMES = sorted(name for name in list_configs("defenses") if name.startswith("martini/") and "setups" not in name)


def decoder_of(name="martini", **options):
    return stage_config(compose(name, **options), "decoder")


def key_of(config):
    return stage_key(config, views=("root",), verb="fit", inputs={}, fingerprint="")


def test_small_cifar_has_one_decoder_for_all_suspects_and_seeds():
    keys = {
        key_of(decoder_of(setup="cifar10_small", attack=attack, seed=seed))
        for attack in ("badnets", "blend", "null")
        for seed in (1, 2)
    }
    assert len(keys) == 1
    assert key_of(decoder_of("martini/mixed", setup="cifar10_small")) in keys


def test_encoders_of_the_setups():
    kinds = {setup: str(decoder_of(setup=setup)["model"]) for setup in ("signs", "cifar10_small")}
    assert "ConvEncoder" in kinds["signs"]
    assert "Lite0Encoder" in kinds["cifar10_small"]
    assert "TinyImageNet" in str(decoder_of(setup="cifar10_small")["data"])


@pytest.mark.parametrize("name", CONTROLS)
def test_controls_differ_from_the_method_in_the_hardening_only(name):
    whole, control = (compose(each)["stages"] for each in ("martini", f"martini/{name}"))
    for stage in ("victim", "decoder", "control"):
        assert whole[stage] == control[stage]
    ours, theirs = (stages["harden"]["model"]["init_args"] for stages in (whole, control))
    assert {key: theirs[key] for key in ("rounds", "harden_steps")} == {
        key: ours[key] for key in ("rounds", "harden_steps")
    }


def test_fine_tuning_beside_it_has_as_many_steps():
    stages = compose("martini")["stages"]
    arguments = stages["harden"]["model"]["init_args"]
    assert stages["control"]["steps"] == arguments["rounds"] * arguments["harden_steps"]


def test_a_stage_may_have_a_seed_of_its_own():
    chain = compose("martini", ["stages.decoder.seed=7"], seed=3)
    assert stage_config(chain, "decoder")["seed_everything"] == 7
    assert stage_config(chain, "decoder")["data"]["init_args"]["seed"] == 7
    assert stage_config(chain, "harden")["seed_everything"] == 3
    with pytest.raises(ValueError, match="seed of stage 'decoder' to be a whole number .* got -1"):
        compose("martini", ["stages.decoder.seed=-1"])


SMALL = [
    f"data.init_args.source.init_args={json.dumps(tiny.SIGNS['init_args'])}",
    "data.init_args.split={root_pool: 24, root: 24}",
    "data.init_args.batch_size=32",
    "stages.victim.model.init_args.classifier.init_args.channels=4",
    "stages.victim.steps=6",
    "stages.decoder.steps=4",
    "stages.decoder.data.init_args.batch_size=12",
]
HARDENING = [
    "stages.harden.model.init_args.rounds=2",
    "stages.harden.model.init_args.reconstruction.steps=2",
    "stages.harden.model.init_args.harden_steps=2",
    "stages.harden.data.init_args.batch_size=12",
    "stages.control.steps=2",
]
DETECTION = ["stages.detect.model.init_args.reconstruction.steps=2", "stages.detect.data.init_args.batch_size=12"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "last", "settings", "metrics"),
    [
        ("martini", "harden", HARDENING, {"acc", "asr", "ra"}),
        ("martini/detect", "detect", DETECTION, {"reconstructed_asr", "reconstructed_psnr", "target_top"}),
    ],
)
def test_chain_runs_from_nothing(name, last, settings, metrics, tmp_path):
    found = run_chain(name, attack="badnets_3x3", settings=[*SMALL, *settings], out=tmp_path / "run", use_cache=False)
    stages = {stage["name"]: stage for stage in found["stages"]}
    assert metrics <= set(stages[last]["metrics"])
    assert {"psnr", "ssim"} <= set(stages["decoder"]["metrics"])
