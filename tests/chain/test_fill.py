"""What the data and the plan determine is filled in; what contradicts them is refused."""

import pytest
import tiny

from lit_backdoor.chain.compose import compose
from lit_backdoor.chain.fill import fill_in
from lit_backdoor.chain.run import ChainRun

UNLEARNING = "lit_backdoor.defenses.btidbf.BTIDBFUnlearning"
NET = "stages.victim.model.init_args.classifier.init_args"


def filled(file, *settings):
    return fill_in(compose(str(file), settings))


def test_nets_get_the_data_s_classes_and_size(file):
    chain = filled(file, f"{NET}={{name: resnet18, channels: 4}}")
    arguments = chain["stages"]["victim"]["model"]["init_args"]["classifier"]["init_args"]
    assert arguments == {"name": "resnet18", "channels": 4, "num_classes": tiny.CLASSES, "input_size": tiny.SIZE}


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        (f"{NET}.num_classes=7", f"data's 4 classes, got one for 7. Set {NET}.num_classes=4"),
        (f"{NET}.input_size=32", f"data's 16 pixels a side, got one for 32. Set {NET}.input_size=16"),
    ],
)
def test_a_net_for_other_data_is_refused(file, setting, message):
    with pytest.raises(ValueError, match=message):
        filled(file, setting)


# 4 classes of 30 rows; 24 of them are the root set: batches of 8 make 3 steps of an epoch.
@pytest.mark.parametrize(
    ("settings", "epochs"),
    [
        (["stages.clean.steps=10"], 3),
        (["stages.clean.steps=11"], 4),
        (["stages.clean.steps=1"], 1),
        (["stages.clean.steps=3", "stages.clean.passes=5"], 5),
        (["stages.clean.steps=10", "stages.clean.trainer.limit_train_batches=2"], 5),
        (["stages.clean.steps=10", "stages.clean.trainer.limit_train_batches=0.4"], 10),
        (["stages.clean.steps=10", "stages.clean.trainer.accumulate_grad_batches=3"], 10),
        (["stages.clean.steps=10", "stages.clean.data.init_args.batch_size=0.5"], 5),
        (["stages.clean.steps=10", "stages.clean.data.init_args.batch_size=99"], 10),
    ],
)
def test_steps_become_epochs(file, settings, epochs):
    stage = filled(file, "stages.clean.data.init_args.batch_size=8", *settings)["stages"]["clean"]
    assert stage["trainer"]["max_epochs"] == epochs
    assert not {"steps", "passes"} & set(stage)


def test_steps_of_a_victim_count_the_questioned_rows(file):
    assert filled(file, "stages.victim.steps=30")["stages"]["victim"]["trainer"]["max_epochs"] == 10  # 96 rows by 32


def test_lengths_among_a_model_s_arguments_become_epochs_and_their_sum_the_trainer_s(file):
    given = "{rounds: 2, unlearn_steps: 5, decoupling: {steps: 3}, inversion: {steps: 6, first_steps: 9}}"
    settings = [
        f"stages.clean={{model: {{class_path: {UNLEARNING}, init_args: {given}}}, inputs: {{model.suspect: victim}}}}",
        "stages.clean.data={init_args: {batch_size: 8}}",
    ]
    stage = filled(file, *settings)["stages"]["clean"]
    assert stage["model"]["init_args"] == {
        "rounds": 2, "unlearn_epochs": 2, "decoupling": {"epochs": 1}, "inversion": {"epochs": 2, "first_epochs": 3},
    }  # fmt: skip
    assert stage["trainer"]["max_epochs"] == 1 + 3 + 2 + 1 + 2 + 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("{unlearn_steps: -3}", "Expected 'unlearn_steps' of BTIDBFUnlearning to be a whole number of steps, got -3"),
        ("{unlearn_steps: 3, unlearn_epochs: 2}", "Expected 'unlearn_steps' or 'unlearn_epochs' .*, got both"),
        (
            "{unlaern_steps: 3}",
            "Unknown argument of BTIDBFUnlearning at 'stages.clean.model' 'unlaern_steps'. Did you mean",
        ),
    ],
)
def test_lengths_that_say_nothing_are_refused(file, arguments, message):
    with pytest.raises(ValueError, match=message):
        filled(file, f"stages.clean.model={{class_path: {UNLEARNING}, init_args: {arguments}}}",
               "stages.clean.inputs={model.suspect: victim}")  # fmt: skip


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("data.init_args.batch_size=many", "batch_size of stage 'victim' to be rows, or a share .*, got 'many'"),
        ("data.init_args.batch_size=null", "batch_size of stage 'victim'"),
        ("data.init_args.batch_size=-8", "batch_size of stage 'victim'"),
        ("data.init_args.batch_size=8.5", "batch_size of stage 'victim'"),
        ("data.init_args.batch_size=.nan", "batch_size of stage 'victim'"),
        ("trainer.limit_train_batches=.inf", "limit_train_batches of stage 'clean' .*, got inf"),
        ("trainer.limit_train_batches=few", "limit_train_batches of stage 'clean' .*, got 'few'"),
        ("trainer.accumulate_grad_batches=0.5", "accumulate_grad_batches of stage 'clean' .*, got 0.5"),
        ("trainer.accumulate_grad_batches=[2]", "accumulate_grad_batches of stage 'clean'"),
        ("trainer.num_nodes=two", "num_nodes to be a whole number above 0, got 'two'"),
    ],
)
def test_what_lengths_cannot_be_counted_with_is_refused(file, setting, message):
    with pytest.raises(ValueError, match=message):
        filled(file, "stages.clean.steps=10", setting)


def test_defaults_count_where_the_class_takes_them(file):
    own = "{class_path: lit_backdoor.stages.FineTune}"
    chain = filled(file, f"stages.clean.model={own}", "stages.clean.inputs={model.suspect: victim}",
                   "stages.clean.defaults={batch_norm: eval, classifier: none}")  # fmt: skip
    assert chain["stages"]["clean"]["model"]["init_args"] == {"batch_norm": "eval"}


def test_a_filled_chain_stays_as_it_is(file):
    chain = filled(file, "stages.clean.steps=10")
    assert fill_in(chain) == chain


def test_a_run_has_its_lengths_filled_in(file, tmp_path):
    run = ChainRun(compose(str(file), ["stages.clean.steps=10"]), "tiny", tmp_path)
    assert run.chain["stages"]["clean"]["trainer"]["max_epochs"] == 10
