import pytest
import tiny

from lit_backdoor.chain import keys as keys_module
from lit_backdoor.chain.compose import compose, stage_config
from lit_backdoor.chain.keys import source_hash, stage_identities, stage_key
from lit_backdoor.chain.run import ChainRun
from lit_backdoor.chain.sources import Sources


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return tiny.write_chain(tmp_path_factory.mktemp("keys") / "tiny.yaml")


@pytest.fixture(scope="module")
def key(base, tmp_path_factory):
    """Give a stage's key, its inputs taken as unchanged."""
    out = tmp_path_factory.mktemp("keys")

    def give(stage, *settings, seed=None, trust_cache=False):
        chain = compose(base, settings, seed)
        run = ChainRun(chain, "tiny", out, trust_cache=trust_cache)
        inputs = dict.fromkeys(chain["stages"][stage].get("inputs", {}), "h")
        return run._key(stage, inputs)

    return give


@pytest.fixture(scope="module")
def keys(key):
    return {stage: key(stage) for stage in ("victim", "select", "generate", "clean")}


CHANGES = [  # setting, the stages whose keys it changes
    ("data.init_args.split.root=10", {"generate", "clean"}),
    ("data.init_args.split.root_pool=30", {"victim", "select", "generate", "clean"}),
    ("data.init_args.attack=wanet", {"victim", "select", "generate"}),
    ("data.init_args.attack.init_args.target=1", {"victim", "select", "generate"}),
    ("data.init_args.attack=null", {"victim", "select", "generate"}),
    ("data.init_args.batch_size=16", {"victim", "select", "generate", "clean"}),
    ("data.init_args.source.init_args.seed=3", {"victim", "select", "generate", "clean"}),
    ("stages.victim.trainer.max_epochs=4", {"victim"}),
    ("stages.victim.model.init_args.schedule=cosine", {"victim"}),
    ("stages.select.model.init_args.share=0.2", {"select"}),
    ("stages.clean.model.init_args.batch_norm=eval", {"clean"}),
    ("trainer.precision=bf16-mixed", {"victim", "select", "generate", "clean"}),
    ("trainer.gradient_clip_val=1.0", {"victim", "select", "generate", "clean"}),
    ("trainer.callbacks=[{class_path: lightning.pytorch.callbacks.StochasticWeightAveraging, init_args: {swa_lrs: 0.1}}]",
     {"victim", "select", "generate", "clean"}),
    # What comes out does not depend on these.
    ("data.init_args.eval_batch_size=64", set()),
    ("data.init_args.num_workers=2", set()),
    ("trainer.limit_val_batches=2", set()),
    ("trainer.enable_progress_bar=true", set()),
    ("trainer.log_every_n_steps=7", set()),
    ("summary.after=victim", set()),
    ("description=other", set()),
    # Defaults that are written out change nothing.
    ("stages.victim.model.init_args.label_smoothing=0.0", set()),
    ("stages.clean.model.init_args.batch_norm=train", set()),
    ("data.init_args.stored_size=null", set()),
]  # fmt: skip


@pytest.mark.parametrize(("setting", "changed"), CHANGES, ids=[setting for setting, _ in CHANGES])
def test_what_changes_a_key(setting, changed, key, keys):
    looked_at = {"victim", "clean"} | (changed if len(changed) < 4 else set())
    assert {stage for stage in looked_at if key(stage, setting) != keys[stage]} == changed & looked_at


def test_seed_changes_a_key(key, keys):
    assert key("victim", seed=6) != keys["victim"]
    assert key("victim", seed=5) == keys["victim"]


def test_selection_counts_as_an_input(base, tmp_path, keys):
    run = ChainRun(compose(base), "tiny", tmp_path)
    inputs = {"model.suspect": "h", "data.suspicious": "h"}
    assert run._key("generate", inputs) == keys["generate"]
    assert run._key("generate", {**inputs, "data.suspicious": "other"}) != keys["generate"]


def test_where_inputs_lie_does_not_count():
    config = settings()["config"]
    elsewhere = {**config, "model": {**config["model"], "init_args": {"suspect": "/a/b"}}}
    assert stage_key(**settings(config=elsewhere)) == stage_key(**settings())


def forget():
    """Read source files anew."""
    source_hash.cache_clear()
    keys_module._module.cache_clear()


def settings(**changes):
    given = {"views": ("root",), "verb": "fit", "inputs": {"model.suspect": "h"}, "fingerprint": "f"}
    config = {
        "seed_everything": 0, "trainer": {"max_epochs": 1},
        "model": {"class_path": "lit_backdoor.stages.FineTune", "init_args": {"suspect": "p"}},
        "data": {"class_path": "d", "init_args": {"split": {"class_path": "s", "init_args": {"root": 5}}, "attack": {}}},
    }  # fmt: skip
    return {"config": config, **given, **changes}


def test_key_leaves_the_settings_as_they_are():
    given = settings(views=("train",))
    assert stage_key(**given) == stage_key(**given)
    assert given == settings(views=("train",))


@pytest.mark.parametrize(("views", "seen"), [((), True), (("root",), True), (("clean",), True), (("train",), False)])
def test_size_of_the_root_set_decides_where_a_stage_may_look_at_it(views, seen):
    """A detector of no view measures the root set all the same."""
    larger = settings(views=views)
    larger["config"]["data"]["init_args"]["split"]["init_args"]["root"] = 6
    assert (stage_key(**settings(views=views)) != stage_key(**larger)) is seen


def test_images_decide():
    assert stage_key(**settings()) != stage_key(**settings(fingerprint="g"))
    assert stage_key(**settings()) != stage_key(**settings(verb="predict"))


def test_code_decides_unless_the_cache_is_trusted(monkeypatch):
    from lit_backdoor.chain import keys as module

    before, trusted = stage_key(**settings()), stage_key(**settings(), trust_cache=True)
    monkeypatch.setattr(module, "source_hash", lambda *names: "other code")
    assert stage_key(**settings()) != before
    assert stage_key(**settings(), trust_cache=True) == trusted


def test_source_hash_follows_imports(tmp_path, monkeypatch):
    """A victim does not depend on a defense's code, a defense does on the stages'."""
    import lit_backdoor.chain.keys as module

    read = []
    original = module.Path.read_bytes
    monkeypatch.setattr(module.Path, "read_bytes", lambda self: read.append(str(self)) or original(self))
    forget()
    source_hash("lit_backdoor.stages.PoisonedTraining")
    assert any(path.endswith("models/timm_classifier.py") for path in read)
    assert not any("/defenses/" in path or "/report/" in path or "/chain/" in path for path in read)
    read.clear()
    forget()
    source_hash("lit_backdoor.defenses.atclean.CollisionGenerator")
    assert any(path.endswith("functional/collision.py") for path in read)
    assert any(path.endswith("stages/base.py") for path in read)
    forget()


MODEL = {"class_path": "lit_backdoor.stages.FineTune", "init_args": {}}
OWN = {  # settings that name a class or function of a project beside the package
    "stage": {"model": {"class_path": "mine.FreshHead"}},
    "trigger": {"data": {"class_path": "d", "init_args": {"attack": {"trigger": {"class_path": "mine.Stripe"}}}}},
    "net": {"model": {**MODEL, "init_args": {"classifier": {"init_args": {"factory": "mine.make_net"}}}}},
}


@pytest.mark.parametrize("changes", OWN.values(), ids=OWN)
@pytest.mark.parametrize("file", ["__init__.py", "parts.py", "helpers/more.py", "other.py"])
def test_code_of_somebodys_own_project_decides(changes, file, tmp_path, monkeypatch):
    """The module of a class and all that it imports count, whether absolutely or not; files beside them do not."""
    (tmp_path / "mine" / "helpers").mkdir(parents=True)
    for name, text in {"__init__.py": "from .parts import *", "parts.py": "import mine.helpers.more, torch",
                       "helpers/__init__.py": "", "helpers/more.py": "import json", "other.py": ""}.items():  # fmt: skip
        (tmp_path / "mine" / name).write_text(text + "\n")
    monkeypatch.syspath_prepend(str(tmp_path))

    def own_key(**options):
        forget()
        base = settings(views=("train",))
        return stage_key(**{**base, "config": {**base["config"], **changes}}, **options)

    before, trusted = own_key(), own_key(trust_cache=True)
    with (tmp_path / "mine" / file).open("a") as text:
        text.write("# changed\n")
    assert (own_key() != before) == (file != "other.py")
    assert own_key(trust_cache=True) == trusted


def test_root_images_from_elsewhere_are_fingerprinted(base, tmp_path):
    sources, data = Sources(), stage_config(compose(base), "clean")["data"]
    other = {**data, "init_args": {**data["init_args"], "root_source": tiny.SIGNS}}
    assert sources.fingerprint(data, ("root",)) != sources.fingerprint(other, ("root",))
    assert sources.fingerprint(data, ("train",)) == sources.fingerprint(other, ("train",))


# Identities: what a grid knows a stage by before anything runs.


def identities(base, *settings, seed=None):
    return stage_identities(compose(base, settings, seed))


@pytest.mark.parametrize(("setting", "changed"), [c for c in CHANGES if c[1]], ids=[s for s, c in CHANGES if c])
def test_what_changes_a_key_changes_an_identity(base, setting, changed):
    """Else a grid would take one stage for another."""
    before, after = identities(base), identities(base, setting)
    assert {stage for stage in before if before[stage] != after[stage]} >= changed


def test_identity_ignores_what_only_shows_a_run_and_follows_seed_and_code(base, monkeypatch):
    before = identities(base)
    assert (
        identities(base, "trainer.limit_val_batches=2", "data.init_args.num_workers=2", "summary.after=victim")
        == before
    )
    assert not set(identities(base, seed=6).values()) & set(before.values())
    monkeypatch.setattr(keys_module, "source_hash", lambda *names: "other code")
    assert not set(identities(base).values()) & set(before.values())


def test_identity_of_a_stage_ignores_its_name_and_what_comes_after(base):
    chain = compose(base)
    before = stage_identities(chain)
    chain |= {"stages": {"first": chain["stages"]["victim"]}, "summary": {"before": "first"}}
    assert stage_identities(chain) == {"first": before["victim"]}


def test_identity_of_what_the_attacker_makes_ignores_the_root_set(base):
    """So that a grid plans one victim for defenses with root sets of other sizes."""
    before, after = identities(base), identities(base, "data.init_args.split.root=7")
    assert before["victim"] == after["victim"]
    assert before["clean"] != after["clean"]
