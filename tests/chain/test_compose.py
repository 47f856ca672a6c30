import pytest
import tiny
import yaml

from lit_backdoor.chain.command import sweep
from lit_backdoor.chain.compose import compose, stage_config
from lit_backdoor.chain.fill import fill_in
from lit_backdoor.chain.names import merge


@pytest.fixture
def file(tmp_path):
    return tiny.write_chain(tmp_path / "tiny.yaml")


def checked(*arguments, **options):
    return fill_in(compose(*arguments, **options))


def written(tmp_path, text, name="own.yaml"):
    (tmp_path / name).write_text(text)
    return str(tmp_path / name)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("format: 1\nstages:\n  victim: {}\n  victim: {}\n", "the key 'victim' stands twice.*line 4"),
        ("format: 1\nstages: &all {victim: *all}\n", "or for themselves"),
        ("format: 1\nstages: " + "[" * 5000, "recursion"),
    ],
)
def test_yaml_that_says_two_things_or_holds_itself_is_refused(tmp_path, text, message):
    with pytest.raises(ValueError, match=rf"(?s)own\.yaml is not YAML: .*{message}"):
        compose(written(tmp_path, text))


def test_a_value_that_holds_itself_is_refused(file):
    with pytest.raises(ValueError, match=r"(?s)The value of --set data.*is not YAML: .*or for themselves"):
        compose(file, ["data.init_args.source=&all {class_path: x, init_args: *all}"])


@pytest.mark.parametrize("key", ["base", "format", "set.seed", "setup", "attack"])
def test_what_counts_in_a_file_alone_is_not_set_in_silence(file, key):
    with pytest.raises(ValueError, match=f"Cannot set '{key}': .* counts only in a chain file"):
        compose(file, [f"{key}=1"])


def test_a_seed_beside_the_chain_s_is_not_left_out_in_silence(file):
    with pytest.raises(ValueError, match=r"no data\.init_args\.seed, which the chain's own seed would replace"):
        compose(file, ["data.init_args.seed=4"])


def test_attack_is_expanded(file):
    attack = compose(file)["data"]["init_args"]["attack"]
    assert attack["class_path"] == "lit_backdoor.triggers.Attack"
    assert attack["init_args"]["trigger"]["init_args"]["size"] == 3


def test_attack_may_be_null_a_file_or_written_out(file, tmp_path):
    assert compose(file, ["data.init_args.attack=null"])["data"]["init_args"]["attack"] is None
    own = written(tmp_path, yaml.safe_dump({"class_path": "lit_backdoor.triggers.Attack", "init_args": {
        "trigger": {"class_path": "lit_backdoor.triggers.Blend"}, "target": 2}}))  # fmt: skip
    for value in (own, "{class_path: lit_backdoor.triggers.Attack, init_args: {trigger: "
                       "{class_path: lit_backdoor.triggers.Blend}, target: 2}}"):  # fmt: skip
        attack = compose(file, [f"data.init_args.attack={value}"])["data"]["init_args"]["attack"]
        assert attack["init_args"]["target"] == 2


@pytest.mark.parametrize("order", [1, -1])
def test_set_reaches_any_key_whatever_its_order(file, order):
    settings = [
        "data.init_args.attack=wanet",
        "data.init_args.attack.init_args.target=3",
        "stages.victim.trainer.max_epochs=5",
        "stages.select.model.init_args.share=1e-2",
        "trainer.precision=bf16-mixed",
    ][::order]
    chain = compose(file, settings, seed=9)
    attack = chain["data"]["init_args"]["attack"]["init_args"]
    assert attack["trigger"]["class_path"] == "lit_backdoor.triggers.WaNet"
    assert attack["target"] == 3
    assert chain["stages"]["victim"]["trainer"]["max_epochs"] == 5
    assert chain["stages"]["select"]["model"]["init_args"]["share"] == 0.01
    assert chain["trainer"]["precision"] == "bf16-mixed"
    assert chain["seed"] == 9


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("stages.victm.trainer.max_epochs=1", "Unknown stage 'victm'. Did you mean 'victim'"),
        ("stages.victim.trainer.max_epoch=1", "Unknown Trainer argument 'max_epoch'. Did you mean 'max_epochs'"),
        ("stages.victim.modell=1", "Did you mean 'model'"),
        ("trainer.precison=32", "Did you mean 'precision'"),
        ("dat.init_args.attack=sig", "Unknown key of a chain 'dat'. Did you mean 'data'"),
        ("data.init_args.atack=sig", "Did you mean 'attack'"),
        ("data.init_args.attack=badnet", "Unknown attack 'badnet'. Did you mean 'badnets"),
        ("data.init_args.attack=none.yaml", "Expected a file at 'none.yaml'"),
        ("data.init_args.attack.init_args.targte=1", "Did you mean 'target'"),
        ("data.init_args.attack.init_args.trigger.init_args.sise=1", "Did you mean 'size'"),
        ("data.init_args.source.class_path=lit_backdoor.data.Cifar1O", "Did you mean 'Cifar10'"),
        ("data.class_path=lit_backdoor.datta.BackdoorDataModule", "Cannot import the class"),
        ("stages.select.model.class_path=lit_backdoor.stages.LowestLos", "Did you mean 'LowestLoss'"),
        ("stages.select.model.init_args.shere=1", "Did you mean 'share'"),
        ("stages.select.inputs={model.suspect: clen}", "Unknown earlier stage.*'clen'"),
        ("stages.select.inputs={model.suspekt: victim}", "Did you mean 'suspect'"),
        ("stages.select.inputs={modl.suspect: victim}", "Did you mean 'model'"),
        ("stages.select.run=train", "fit or predict"),
        ("stages.select.model=LowestLoss", "to name its class"),
        ("stages.select.trainer=5", "section of keys and values"),
        ("stages.select=7", "section of keys and values"),
        ("stages.victim.trainer.max_epochs.x=1", "is 3, not a section"),
        ("summary={befor: victim}", "Did you mean 'before'"),
        ("summary.after=victm", "Did you mean 'victim'"),
        ("summary=victim", "section of keys and values"),
        ("data.init_args.split.rooot=5", "Did you mean 'root'"),
        ("seed=x", "whole number"),
        ("seed=true", "whole number"),
        ("seed=4294967296", "whole number"),
        ("stages=null", "section 'stages'"),
        ("data=null", "section 'data'"),
        ("data=1", "section 'data'"),
        ("data.init_args=null", "data.init_args.source"),
        ("data.init_args=3", "section of keys and values"),
        ("stages.select.inputs=[1]", "section of keys and values"),
        ("stages.victim", "Expected --set a.b.c=value"),
        ("seed=[1", "is not YAML"),
    ],
)  # fmt: skip
def test_wrong_names_give_the_nearest(file, setting, message):
    with pytest.raises(ValueError, match=message):
        checked(file, [setting])


def test_arguments_of_a_class_that_passes_some_on_are_its_own_and_the_next_ones():
    stamped = "stages.tune.model.class_path=lit_backdoor.defenses.tac.TACStampFineTune"
    given = "stages.tune.model.init_args={search: {}, batch_norm: eval}"
    chain = compose("tac_stamps", [stamped, given])
    assert chain["stages"]["tune"]["model"]["init_args"]["batch_norm"] == "eval"
    with pytest.raises(
        ValueError, match="Did you mean 'batch_norm'.*Known: batch_norm, beta, .*, search, .*, suspect, target"
    ):
        checked("tac_stamps", [stamped, "stages.tune.model.init_args.batchnorm=eval"])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "format: 1"),
        ("- a\n- b", "format: 1"),
        ("format: 2", "format: 1"),
        ("format: 1\ndata: []\nstages: {}", "Expected 'data' to be a section"),
        ("format: 1\ndata: {class_path: lit_backdoor.data.BackdoorDataModule}", "section 'stages'"),
        ("format: 1\ndata: {class_path: lit_backdoor.data.BackdoorDataModule}\nstages: {}", "data.init_args.source"),
        ("format: 1\nstage: {}", "Did you mean 'stages'"),
        ("a: [", "not YAML"),
        ("format: 1\nbase: nowhere", "Unknown chain 'nowhere'"),
        ("format: 1\nbase: [demo, 3]", "to be a name or a file, or a list, got 3"),
        ("format: 1\nbase: 3", "to be a name or a file, or a list, got 3"),
        ("format: 1\nbase: own.yaml", "leads back to it"),
        ("format: 1\nset: [1]\ndata: {}\nstages: {}", "section of keys and values"),
        ("format: 1\nset: {stages.victm.run: fit}", "Unknown stage 'victm'. Did you mean 'victim'"),
    ],
)
def test_files_that_are_no_chains(tmp_path, text, message):
    with pytest.raises(ValueError, match=message):
        compose(written(tmp_path, text))


@pytest.mark.parametrize("name", ["/tmp/precious", ".", "..", "../evil", ".runs", "results.json", "", "a b", 1])
def test_stage_names_that_would_not_be_folders_of_their_own_are_refused(name, tmp_path):
    chain = tiny.chain()
    chain["stages"] = {name: chain["stages"]["victim"]}
    with pytest.raises(ValueError, match="letters, digits"):
        compose(written(tmp_path, yaml.safe_dump({**chain, "summary": {}})))


def test_settings_of_a_chain_without_a_base_are_applied(tmp_path):
    own = written(tmp_path, yaml.safe_dump(tiny.chain(set={"stages.victim.trainer.max_epochs": 6}), sort_keys=False))
    assert compose(own)["stages"]["victim"]["trainer"]["max_epochs"] == 6


def test_a_sweep_may_take_stages_out(file):
    chain = compose(file, ["sweep={stages.clean: [null]}", "summary.after=null"])
    [(label, variant)] = sweep(chain)
    assert label == "clean=None"
    assert "clean" not in variant["stages"]
    with pytest.raises(ValueError, match="Unknown key of a chain '1'"):
        sweep({**chain, "sweep": {1: [1]}})


def test_unknown_chain_gives_the_nearest():
    with pytest.raises(ValueError, match="Unknown chain 'dmeo'. Did you mean 'demo'"):
        compose("dmeo")


def test_variant_of_a_base(tmp_path, file):
    own = written(tmp_path, "format: 1\nbase: tiny.yaml\nset: {stages.select.model.init_args.share: 0.2}\n"
                            "stages:\n  victim: {trainer: {max_epochs: 7}}\n  generate: null\n  clean: null\n"
                            "summary: {after: null}\n")  # fmt: skip
    chain = compose(own)
    assert list(chain["stages"]) == ["victim", "select"]
    assert chain["stages"]["victim"]["trainer"]["max_epochs"] == 7
    assert chain["stages"]["select"]["model"]["init_args"] == {"share": 0.2}
    assert chain["stages"]["victim"]["model"]["init_args"]["classifier"]["init_args"]["channels"] == 4
    assert chain["seed"] == 5


@pytest.mark.parametrize("base", ["demo", "demo.yaml"])
def test_base_may_be_a_shipped_chain_by_its_name(base, tmp_path):
    (tmp_path / "mine.yaml").write_text(f"format: 1\nbase: {base}\nseed: 7\n")
    mine = compose(str(tmp_path / "mine.yaml"))
    assert mine["stages"] == compose("demo")["stages"]
    assert mine["seed"] == 7


DETECT = "{run: predict, model: {class_path: lit_backdoor.defenses.tac.TACDetection}, inputs: {model.suspect: victim}}"


@pytest.mark.parametrize("order", [1, -1])
@pytest.mark.parametrize("wire", ["stages.sanitize.inputs.model.target=detect",
                                  "stages.sanitize.inputs={model.suspect: victim, model.target: detect}"])  # fmt: skip
def test_detector_is_wired_into_a_shipped_chain_by_settings_alone(wire, order):
    stages = compose("pgbd_stamps", [f"stages.detect={DETECT}", wire][::order])["stages"]
    assert list(stages) == ["victim", "detect", "sanitize", "control"]
    assert stages["sanitize"]["inputs"] == {"model.suspect": "victim", "model.target": "detect"}


TARGET = "stages.sanitize.model.init_args.target=3"


@pytest.mark.parametrize("settings", [
    [TARGET],
    ["stages.sanitize.model.init_args={target: 3}"],
    ["stages.sanitize={model: {class_path: lit_backdoor.defenses.pgbd.PGBD, init_args: {target: 3}},"
     " inputs: {model.suspect: victim, model.target: detect}}"],
    [TARGET, "stages.sanitize.inputs={model.suspect: victim, model.target: detect}"],
])  # fmt: skip
@pytest.mark.parametrize("order", [1, -1])
def test_value_that_an_input_replaces_is_not_taken_silently(settings, order):
    given = [f"stages.detect={DETECT}", "stages.sanitize.inputs.model.target=detect", *settings][::order]
    message = (
        "target of stage 'sanitize', got .*stage 'detect' would replace it.* stages.sanitize.inputs.model.target=null"
    )
    with pytest.raises(ValueError, match=message):
        compose("pgbd_stamps", given)


def test_value_counts_where_its_input_is_taken_out():
    tune = compose("tac_faces", ["stages.tune.model.init_args.target=2", "stages.tune.inputs.model.target=null"])
    assert stage_config(tune, "tune")["model"]["init_args"]["target"] == 2
    assert tune["stages"]["tune"]["inputs"] == {"model.suspect": "victim"}


@pytest.mark.parametrize("key", ["data.init_args.suspicious", "stages.generate.data.init_args.suspicious"])
def test_data_that_an_input_replaces_are_not_taken_silently(file, key):
    with pytest.raises(ValueError, match="suspicious of stage 'generate'.*the bundle of stage 'select' would replace"):
        compose(file, [f"{key}=mine"])


def test_sweep_over_a_value_that_an_input_replaces_is_refused(file):
    with pytest.raises(ValueError, match="generator of stage 'clean'"):
        sweep({**compose(file), "sweep": {"stages.clean.model.init_args.generator": ["a", "b"]}})


def test_stages_that_wait_for_each_other_are_refused(file):
    with pytest.raises(ValueError, match=r"'\w+' and '\w+' wait for each other"):
        compose(file, ["stages.select.inputs={model.suspect: clean}"])


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("stages.generate.inputs.model.suspect=select", "'model.suspect' of stage 'generate'.*'suspect', but 'select'"),
        ("stages.generate.inputs.data.suspicious=victim", "a bundle of kind 'selection', but 'victim' produces .*'suspect'"),
        ("stages.clean.inputs.model.generator=victim", "'generator' or 'trigger' or 'targets', but 'victim'"),
        ("summary.after=generate", "summary.after to name a stage that produces a suspect; 'generate' produces a generator"),
    ],
)  # fmt: skip
def test_inputs_of_the_wrong_kind_are_refused(setting, message):
    with pytest.raises(ValueError, match=message):
        checked("demo", [setting])


def test_changed_class_drops_the_old_arguments():
    base = {"class_path": "a.B", "init_args": {"x": 1}}
    assert merge(base, {"class_path": "a.C"}) == {"class_path": "a.C"}
    assert merge(base, {"init_args": {"y": 2}}) == {"class_path": "a.B", "init_args": {"x": 1, "y": 2}}
    assert base["init_args"] == {"x": 1}


def test_stage_gets_the_chain_s_seed_data_and_trainer(file):
    chain = compose(file, ["stages.select.data.init_args.batch_size=8"], seed=6)
    config = stage_config(chain, "select")
    assert config["seed_everything"] == config["data"]["init_args"]["seed"] == 6
    assert config["data"]["init_args"]["batch_size"] == 8
    assert stage_config(chain, "victim")["data"]["init_args"]["batch_size"] == 32
    assert stage_config(chain, "victim")["trainer"]["max_epochs"] == 3


def test_sweep_gives_every_combination(file):
    chain = {**compose(file), "sweep": {"data.init_args.attack": ["sig", "wanet"], "stages.select.model.init_args.share":
                                        [0.1, 0.2]}}  # fmt: skip
    variants = sweep(chain)
    assert [label for label, _ in variants] == [
        "attack=sig,share=0.1", "attack=sig,share=0.2", "attack=wanet,share=0.1", "attack=wanet,share=0.2",
    ]  # fmt: skip
    last = variants[-1][1]
    assert "WaNet" in str(last["data"]["init_args"]["attack"])
    assert last["stages"]["select"]["model"]["init_args"]["share"] == 0.2
    assert "sweep" not in last


def test_runs_of_a_sweep_have_folders_of_their_own(file):
    axis = "data.init_args.attack.init_args.trigger"
    patches = [{"class_path": "lit_backdoor.triggers.Patch", "init_args": {"size": size}} for size in (2, 3)]
    labels = [label for label, _ in sweep({**compose(file), "sweep": {axis: patches}})]
    assert labels == ["trigger=Patch", "trigger=Patch,2"]
    with pytest.raises(ValueError, match="each value of the sweep over 'seed' once, got"):
        sweep({**compose(file), "sweep": {"seed": [1, 2, 1]}})


def test_a_bundle_is_no_attack_of_a_chain(file, tmp_path):
    (tmp_path / "victim").mkdir()
    (tmp_path / "victim" / "bundle.json").write_text("{}")
    with pytest.raises(ValueError, match="got the bundle .*victim: a chain plants its attack itself.*GivenSuspect"):
        compose(file, [f"data.init_args.attack={tmp_path / 'victim'}"])


def test_no_sweep_is_one_run_without_a_label(file):
    [(label, chain)] = sweep(compose(file))
    assert label == ""
    assert chain["seed"] == 5


@pytest.mark.parametrize(("depth", "times"), [(200, 1), (12, 9)], ids=["one on the other", "each many times"])
def test_a_chain_of_very_many_files_is_refused(tmp_path, depth, times):
    (tmp_path / f"own{depth}.yaml").write_text("format: 1")
    for number in range(depth):
        (tmp_path / f"own{number}.yaml").write_text(f"format: 1\nbase: {[f'own{number + 1}.yaml'] * times}")
    with pytest.raises(ValueError, match="based on at most 100 files, got more"):
        compose(str(tmp_path / "own0.yaml"))


def test_a_sweep_of_very_many_runs_is_refused(file):
    axes = {f"stages.{name}.seed": list(range(99)) for name in ("victim", "select", "generate", "clean")}
    with pytest.raises(ValueError, match="at most 1,000 runs, got 96,059,601"):
        sweep({**compose(file), "sweep": axes})
