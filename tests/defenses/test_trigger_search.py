import socket

import pytest
import tiny
import torch
from btidbf_parts import architecture
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import nn
from torch.nn import functional as F

from lit_backdoor.defenses.trigger_inversion import CostRule, NeuralCleanse, PixelInversion
from lit_backdoor.models import wrap_classifier
from lit_backdoor.stages.rules import mark

EPOCHS = 4
EASY = CostRule(patience=1, threshold=0.3)  # so that triggers are kept and costs move at once
STAGES = {
    "NeuralCleanse": lambda v, **o: NeuralCleanse(v, **{"cost": EASY, **o}),
    "PixelInversion": lambda v, **o: PixelInversion(v, **{"cost": EASY, **o}),
}
every_search = pytest.mark.parametrize("name", STAGES)
BATCH = {"batch_size": 8}


def planted(target=2, classes=6):
    """A linear classifier: the mean of a band of rows says the class, four pixels lead to one of them."""
    linear = nn.Linear(3 * 16 * 16, classes)
    weight = torch.zeros(classes, 3, 16, 16)
    for label in range(classes):
        weight[label, :, 2 * label : 2 * label + 2] = 0.3
    weight[target, :, 14:, 14:] = 8.0
    with torch.no_grad():
        linear.weight.copy_(weight.flatten(1))
        linear.bias.zero_()
    net = nn.Sequential(nn.Flatten(), linear)
    return wrap_classifier(
        net, split="0", num_classes=classes, input_size=16, mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25)
    )


def trained(stage, epochs=EPOCHS, **options):
    return tiny.fit(stage, tiny.data(**BATCH), max_epochs=epochs, **options)


@pytest.mark.parametrize("stage", [
    NeuralCleanse(planted(), CostRule(0.01, patience=2, threshold=0.9)),
    PixelInversion(planted(), CostRule(0.1, patience=3, threshold=0.9)),
])  # fmt: skip
def test_class_with_a_small_trigger_is_named(stage):
    trained(stage, epochs=80)
    report = stage.report()
    assert report.top == report.flagged[0] == 2
    images = torch.rand(50, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    assert (planted()(stage.trigger(2)(images)).argmax(1) == 2).float().mean() > 0.85


@every_search
def test_resumed_search_equals_one_that_was_not_stopped(name, tmp_path):
    stage = STAGES[name](tiny.classifier())
    stage.configure_model()
    start = tiny.tensors(stage)
    saver = ModelCheckpoint(tmp_path, "{epoch}", save_top_k=-1)
    tiny.fit(stage, tiny.data(**BATCH), max_epochs=EPOCHS, callbacks=[saver], enable_checkpointing=True,
             limit_val_batches=1)  # fmt: skip
    torch.manual_seed(12345)
    resumed = STAGES[name](tiny.classifier())
    tiny.trainer(max_epochs=EPOCHS, limit_val_batches=1).fit(
        resumed, datamodule=tiny.data(**BATCH), ckpt_path=tmp_path / "epoch=1.ckpt", weights_only=True
    )
    one, two = stage.state_dict(), resumed.state_dict()
    assert one.keys() == two.keys()
    assert all(torch.equal(one[key], two[key]) for key in one)
    assert tiny.moved(start, one) >= {"raw.0", "raw.1", "kept.0", "kept.1", "best", "costs"}


@every_search
def test_chunks_do_not_matter(name):
    states = [trained(STAGES[name](tiny.classifier(), images_at_once=size)).state_dict() for size in (1, 8 * 3, 1000)]
    for key, value in states[0].items():
        assert all(torch.allclose(value.float(), other[key].float(), atol=1e-3) for other in states[1:]), key


@every_search
def test_gradient_is_that_of_the_written_out_loss(name):
    stage, seen = STAGES[name](tiny.classifier(), images_at_once=8), {}
    steps = tiny.recorded(stage)
    stage.on_before_optimizer_step = lambda optimizer: seen.update(found=[raw.grad.clone() for raw in stage.raw])
    trained(stage, limit_train_batches=1, epochs=1)
    again = STAGES[name](tiny.classifier())
    again.trainer = stage.trainer
    again.configure_model()
    loss, (images, labels) = 0, (steps[0]["batch"]["image"], steps[0]["batch"]["label"])
    for label in range(tiny.CLASSES):
        raw = [each[label : label + 1] for each in again.raw]
        others = again.stamp(images[labels != label], *raw)[0]
        wanted = torch.full((len(others),), label)
        loss = loss + F.cross_entropy(again.net(others), wanted) + 1e-3 * again.penalty(*raw).sum()
    loss.backward()
    assert float(steps[0]["loss"]) == pytest.approx(float(loss.detach()), rel=1e-5)
    for found, raw in zip(seen["found"], again.raw, strict=True):
        assert torch.allclose(found, raw.grad, atol=1e-6)
        assert found.abs().sum() > 0


@every_search
def test_smallest_trigger_that_works_is_kept(name):
    stage, seen = STAGES[name](tiny.classifier()), []
    rule = stage._apply_rule

    def watched():
        seen.append((stage.hits / stage.rows, stage.size(*stage.raw), [raw.detach().clone() for raw in stage.raw]))
        rule()

    stage._apply_rule = watched
    trained(stage)
    assert len(seen) == (EPOCHS if name == "NeuralCleanse" else 3 * EPOCHS)
    for label in range(tiny.CLASSES):
        worked = [(float(size[label]), raw) for rate, size, raw in seen if rate[label] >= EASY.threshold]
        size, raw = min(worked, key=lambda pair: pair[0], default=(torch.inf, None))
        assert float(stage.best[label]) == size
        assert raw is None or all(torch.equal(k[label], r[label]) for k, r in zip(stage.kept, raw, strict=True))
    assert stage.best.isfinite().any()


@every_search
@pytest.mark.parametrize(("own", "rows"), [(False, 18), (True, 24)])
def test_images_of_the_class_itself_count_where_asked(name, own, rows):
    stage = STAGES[name](tiny.classifier(), own_images=own)
    stage._apply_rule = lambda: None
    trained(stage, epochs=1)
    assert stage.rows.tolist() == [rows] * tiny.CLASSES


@every_search
@pytest.mark.parametrize(("reached", "top"), [(0, None), (2, 3)])
def test_too_few_triggers_decide_nothing(name, reached, top):
    stage = STAGES[name](tiny.classifier())
    stage.configure_model()
    stage.on_load_checkpoint({"lit_backdoor": mark(stage)})
    stage.best[[3, 1][:reached]] = torch.tensor([5.0, 6.0])[:reached]
    outcome = stage.outcome()
    numbers = outcome.numbers
    assert (numbers["target_class"], numbers["top_class"], numbers["classes_reached"]) == (None, top, reached)
    assert outcome.tensors["flagged"].tolist() == []
    assert (outcome.module is None) == (reached == 0)


@every_search
def test_search_does_not_know_the_attack(name):
    one, two = (
        tiny.fit(STAGES[name](tiny.classifier()), tiny.data(plan, **BATCH), max_epochs=2).state_dict()
        for plan in (tiny.attack(), None)
    )
    assert all(torch.equal(one[key], two[key]) for key in one)


@every_search
@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_any_architecture_and_precision(name, precision):
    stage = STAGES[name](architecture("vit_tiny_patch16_224"))
    tiny.fit(stage, tiny.data(stored_size=32, **BATCH), max_epochs=1, precision=precision)
    assert {raw.dtype for raw in stage.raw} == {torch.float32}
    assert all(torch.isfinite(raw).all() for raw in stage.raw)
    assert not any(weight.requires_grad for weight in stage.net.parameters())


def in_two(rank, world_size, port):
    told = {
        "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(world_size), "RANK": str(rank),
        "LOCAL_RANK": str(rank), "LOCAL_WORLD_SIZE": str(world_size), "TORCHELASTIC_RUN_ID": "test",
    }  # fmt: skip
    found = {}
    with pytest.MonkeyPatch.context() as patch:  # the process serves other tests too
        for key, value in told.items():
            patch.setenv(key, value)
        for name, make in STAGES.items():
            stage, rates = make(tiny.classifier()), []
            rule = stage._apply_rule
            stage._apply_rule = lambda stage=stage, rates=rates, rule=rule: (rates.append(stage.rows.clone()), rule())
            tiny.fit(stage, tiny.data(batch_size=4), max_epochs=2, strategy="ddp", devices=world_size)
            found[name] = {key: value.clone() for key, value in stage.state_dict().items()}, rates
    return found


def test_two_processes_end_with_the_same_triggers_and_count_all_images(run_ddp):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    one, two = run_ddp(in_two, port)
    for name in STAGES:
        (first, rows), (second, _) = one[name], two[name]
        assert all(torch.equal(first[key], second[key]) for key in first)
        assert first["best"].isfinite().any()
        seen = 24 if name == "NeuralCleanse" else 8
        assert all(len(each) == 4 and int(each.sum()) == 3 * seen for each in rows)


@pytest.mark.parametrize(("stage", "message"), [
    (lambda: NeuralCleanse("x", lr=0), "lr > 0, got 0"),
    (lambda: PixelInversion("x", images_at_once=0), "images_at_once > 0, got 0"),
])  # fmt: skip
def test_numbers_out_of_range_are_refused(stage, message):
    with pytest.raises(ValueError, match=message):
        stage()


def test_images_of_another_size_are_refused():
    with pytest.raises(ValueError, match=r"suspect's size, \[16, 16\], got \[24, 24\]"):
        tiny.fit(NeuralCleanse(tiny.classifier()), tiny.data(stored_size=24, **BATCH))


@pytest.mark.parametrize("make", [NeuralCleanse, PixelInversion])
def test_nothing_is_handed_on_before_the_search(make):
    with pytest.raises(ValueError, match=f"Expected {make.__name__} to have run; call fit"):
        make(tiny.classifier()).outcome()


def test_search_that_ends_inside_an_epoch_applies_its_rule_to_what_it_saw():
    easy = CostRule(threshold=0.01)
    stage = tiny.fit(NeuralCleanse(planted(), easy), tiny.data(batch_size=4), max_epochs=3, max_steps=3)
    assert stage.report().numbers["classes_reached"] > 0
    assert stage.rows.eq(0).all()


def test_search_that_was_built_but_did_not_run_has_nothing_to_report():
    stage = NeuralCleanse(planted())
    stage.configure_model()
    with pytest.raises(ValueError, match="Expected NeuralCleanse to have run"):
        stage.report()
