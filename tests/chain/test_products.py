"""Chains as products of a setup, an attack and a defense."""

import subprocess
import sys

import pytest
import yaml

from lit_backdoor import presets
from lit_backdoor.chain.compose import compose
from lit_backdoor.chain.fill import check

DEFENSE = """
format: 1
stages:
  clean:
    model: {class_path: lit_backdoor.stages.FineTune}
    inputs: {model.suspect: victim}
    steps: 20
summary: {after: clean}
"""
TRAINED = """
attack:
  class_path: lit_backdoor.triggers.Attack
  init_args: {trigger: {class_path: lit_backdoor.triggers.Patch}, target: 1, rate: 0.2}
victim: {class_path: lit_backdoor.attacks.MultiLevelMMDTraining, init_args: {weight: 0.03}}
"""


@pytest.fixture
def shipped(tmp_path, monkeypatch):
    """A folder of configurations with the shipped setups and attacks, to put files into."""
    for kind in ("setups", "attacks", "chains", "defenses"):
        (tmp_path / kind).mkdir()
    for kind in ("setups", "attacks"):
        for key, path in presets.list_configs(kind).items():
            (tmp_path / kind / f"{key}.yaml").write_text(path.read_text())
    monkeypatch.setattr(presets, "config_folder", lambda: tmp_path)
    return tmp_path


def written(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return str(path)


def test_defaults_are_signs_and_badnets(tmp_path):
    chain = compose(written(tmp_path / "mine.yaml", DEFENSE))
    assert chain["setup"] == "signs"
    assert chain["attack"] == "badnets"
    assert "Patch" in str(chain["data"]["init_args"]["attack"])
    assert list(chain["stages"]) == ["victim", "clean", "control"]
    assert chain["summary"] == {"before": "victim", "after": "clean"}


def test_setup_and_attack_are_chosen_by_name_or_file(tmp_path):
    own = written(tmp_path / "own.yaml", TRAINED)
    mine = written(tmp_path / "mine.yaml", "format: 1\nbase: cifar10_small\nstages: {victim: {steps: 7}}\n")
    chain = compose("atclean_mixed", setup=mine, attack=own, seed=3)
    assert (chain["setup"], chain["attack"], chain["seed"]) == ("mine", "own", 3)
    assert chain["stages"]["victim"]["steps"] == 7
    assert (
        chain["stages"]["generate"]["steps"] == 240
    )  # what the method has for other setups, tuned for these data or not


def test_an_attack_of_null_is_a_clean_model():
    chain = compose("fine_tune", attack="null")
    assert chain["data"]["init_args"]["attack"] is chain["attack"] is None


def test_setup_has_its_own_attack_where_none_is_asked_for():
    assert compose("pgbd", setup="faces")["attack"] == "sunglasses"
    assert compose("pgbd", setup="faces", attack="painted_mask")["attack"] == "painted_mask"


def test_an_attack_may_train_the_victim_with_what_the_setup_gives_it(tmp_path):
    chain = compose("fine_tune", attack=written(tmp_path / "own.yaml", TRAINED), setup="faces")
    victim = chain["stages"]["victim"]
    assert victim["model"]["class_path"] == "lit_backdoor.attacks.MultiLevelMMDTraining"
    assert victim["model"]["init_args"] == {"weight": 0.03}
    assert set(victim["defaults"]) == {"classifier", "optimizer"}
    assert chain["data"]["init_args"]["attack"]["init_args"]["target"] == 1


FIXED = "{run: predict, model: {class_path: lit_backdoor.stages.ImportedSuspect, init_args: {weights: my.pt}}}"


def test_an_attack_that_trains_is_refused_where_the_victim_is_fixed(tmp_path):
    setup = written(tmp_path / "fixed.yaml", f"format: 1\nbase: signs\nstages: {{victim: {FIXED}}}\n")
    attack = written(tmp_path / "own.yaml", TRAINED)
    net = "{class_path: lit_backdoor.models.TimmClassifier}"
    text = (tmp_path / "fixed.yaml").read_text().replace("weights:", f"classifier: {net}, weights:")
    written(tmp_path / "fixed.yaml", text)
    with pytest.raises(ValueError, match="the attack 'own' trains its own, but that of 'fixed' is fixed"):
        compose("fine_tune", setup=setup, attack=attack)
    assert compose("fine_tune", setup=setup, attack="blend")["attack"] == "blend"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("format: 1\nbase: signs\nstages: {victim: null}\n", "to name a net: stages.victim.model.init_args.classifier"),
        ("format: 1\nstages: {}\n", "to name its data"),
    ],
)
def test_a_setup_without_a_net_or_data_is_refused(tmp_path, text, message):
    with pytest.raises(ValueError, match=message):
        compose("fine_tune", setup=written(tmp_path / "bare.yaml", text))


def test_a_chain_with_data_of_its_own_takes_no_setup_but_an_attack(tmp_path):
    import tiny

    file = tiny.write_chain(tmp_path / "tiny.yaml")
    assert compose(file, attack="wanet")["attack"] == "wanet"
    with pytest.raises(ValueError, match="no setup for the chain file .* names its own data"):
        compose(file, setup="signs")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"setup": "sign"}, "Unknown setup 'sign'. Did you mean 'signs'"),
        ({"attack": "badnet"}, "Unknown attack 'badnet'. Did you mean 'badnets"),
    ],
)
def test_unknown_parts_give_the_nearest(options, message):
    with pytest.raises(ValueError, match=message):
        compose("fine_tune", **options)


def test_names_are_paths_and_short_where_only_one_has_them(shipped):
    for name in ("abl/abl", "abl/paper", "nad/paper", "nad/wide"):
        written(shipped / "defenses" / f"{name}.yaml", DEFENSE.replace("20", str(len(name))))
    assert set(presets.list_configs("defenses")) == {"abl", "abl/paper", "nad/paper", "nad/wide"}
    for name in ("abl", "abl/paper", "wide"):
        assert compose(name)["stages"]["clean"]
    with pytest.raises(ValueError, match="of a name of its own, but 'paper' may be abl/paper, nad/paper"):
        compose("paper")
    written(shipped / "chains" / "abl.yaml", DEFENSE)
    presets._listed.cache_clear()
    with pytest.raises(ValueError, match="'abl' may be abl, abl"):
        compose("abl")


def test_a_method_has_lengths_of_its_own_for_a_setup(shipped):
    written(shipped / "defenses" / "abl" / "abl.yaml", DEFENSE)
    lengths = shipped / "defenses" / "abl" / "setups" / "signs.yaml"
    written(lengths, "abl: {clean: {steps: 7, data: {init_args: {batch_size: 16}}}}")
    stage = compose("abl")["stages"]["clean"]
    assert stage["steps"] == 7
    assert stage["data"]["init_args"]["batch_size"] == 16
    assert compose("abl", setup="cifar10_small")["stages"]["clean"]["steps"] == 20


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "abl: {clean: {model: {init_args: {batch_norm: eval}}}}",
            "only steps, passes and batch sizes.*got 'batch_norm'",
        ),
        ("abl: {claen: {steps: 7}}", "Did you mean 'clean'"),
    ],
)
def test_other_settings_for_a_setup_are_refused(shipped, text, message):
    written(shipped / "defenses" / "abl" / "abl.yaml", DEFENSE)
    written(shipped / "defenses" / "abl" / "setups" / "signs.yaml", text)
    with pytest.raises(ValueError, match=message):
        compose("abl")


def test_a_chain_may_have_several_bases(tmp_path):
    mine = written(tmp_path / "mine.yaml", "format: 1\nbase: [atclean_mixed, other.yaml]\nseed: 9\n")
    written(tmp_path / "other.yaml", "format: 1\nstages: {clean: {model: {init_args: {batch_norm: eval}}}}\n")
    chain = compose(mine)
    assert chain["stages"]["clean"]["model"]["init_args"] == {"batch_norm": "eval"}
    assert chain["seed"] == 9


def test_the_length_said_last_holds():
    assert "steps" not in compose("pgbd/paper")["stages"]["sanitize"]
    stage = compose("atclean_mixed", ["stages.clean.trainer.max_epochs=3"])["stages"]["clean"]
    assert stage["trainer"] == {"max_epochs": 3}
    assert "steps" not in stage
    stage = compose("pgbd/paper", ["stages.sanitize.steps=3"])["stages"]["sanitize"]
    assert (stage["steps"], stage["trainer"]) == (3, {})


@pytest.mark.parametrize("share", ["0", "1.5", "half"])
def test_a_defense_s_part_of_the_root_set_is_a_share(tmp_path, share):
    with pytest.raises(ValueError, match=r"'root' in the chain to be a share .* in \(0, 1\]"):
        compose(written(tmp_path / "mine.yaml", f"root: {share}\n{DEFENSE}"))


def test_a_defense_may_hold_part_of_the_root_set(tmp_path):
    mine = written(tmp_path / "mine.yaml", f"root: 0.5\n{DEFENSE}")
    assert compose(mine)["data"]["init_args"]["split"] == {"train": 0.9, "root_pool": 0.1, "root": 0.05}
    assert compose(mine, setup="cifar10_small")["data"]["init_args"]["split"]["root"] == 1000
    own = compose(mine, ["data.init_args.split.root=50"], setup="cifar10_small")
    assert own["data"]["init_args"]["split"]["root"] == 50


def test_a_defense_that_needs_a_target_says_how_to_give_one():
    chain = compose("pgbd", ["stages.sanitize.model.init_args.target=null"])
    both = r"needs the target class.*--set stages.sanitize.model.init_args.target=0.*inputs.model.target=STAGE"
    with pytest.raises(ValueError, match=both):
        check(chain)


def test_a_defense_that_needs_the_questioned_set_is_refused_where_there_is_none(tmp_path):
    setup = written(tmp_path / "outside.yaml", "format: 1\nbase: signs\nquestioned: false\n")
    with pytest.raises(ValueError, match=r"'select' .* needs the questioned set .* the setup 'outside' does not have"):
        check(compose("atclean_mixed", setup=setup))
    check(compose("tac", setup=setup))


@pytest.mark.parametrize("steps", ["-1", "0", "2.5", "many", "true"])
def test_lengths_are_whole_numbers(steps):
    with pytest.raises(ValueError, match="Expected steps of stage 'clean' to be a whole number of at least 1"):
        compose("atclean_mixed", [f"stages.clean.steps={steps}"])


def test_composing_imports_no_torch():
    code = "import sys; from lit_backdoor.chain.compose import compose; compose('pgbd'); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "False", done.stderr


def test_composed_chains_share_nothing():
    first = compose("atclean_mixed")
    before = yaml.safe_dump(first)
    compose("atclean_mixed", ["stages.generate.model.init_args.alpha=7"])["stages"].clear()
    assert yaml.safe_dump(compose("atclean_mixed")) == before


@pytest.mark.parametrize(
    ("settings", "name"),
    [
        ([], "badnets"),
        (["data.init_args.attack.init_args.rate=0.2"], "badnets"),
        (["data.init_args.attack=blend", "data.init_args.attack.init_args.rate=0.2"], "blend"),
        (["data.init_args.attack.init_args.trigger.class_path=mine.Stripe"], "Stripe"),
        (["data.init_args.attack=null"], None),
    ],
)
def test_an_attack_is_called_by_its_name_only_while_it_has_its_trigger(settings, name):
    assert compose("fine_tune", settings)["attack"] == name
