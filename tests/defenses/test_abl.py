"""ABL: its three losses, a toy that it cleans and one that it cannot."""

import pruning_parts as parts
import pytest
import tiny
import torch
from torch.nn import functional as F

from lit_backdoor.bundle import save_bundle
from lit_backdoor.data import BackdoorDataModule, Split, TensorSource
from lit_backdoor.defenses.abl import ABLAscent, ABLIsolation, ABLTraining, ABLUnlearning

POISONED = list(range(0, 16, 2))  # rows of class 0


def chosen(folder, rows):
    return str(save_bundle(folder, kind="selection", tensors={"indices": torch.tensor(rows)}).path)


def questioned(suspicious):
    """Gray noise by brightness, whose first dark rows are reddened and labeled bright."""
    images, labels = parts.source().train().images(torch.arange(64)).float() / 255, torch.arange(64) % 2
    images[POISONED] = parts.faint(images[POISONED])
    labels[POISONED] = 1
    source = TensorSource(((images * 255).to(torch.uint8), labels), ((images * 255).to(torch.uint8), labels))
    return BackdoorDataModule(source, Split(root_pool=0), augment=None, batch_size=16, seed=3, suspicious=suspicious)


def slow(parameters):
    return torch.optim.SGD(parameters, lr=0.01, momentum=0.9)


def test_isolation_starts_anew_and_climbs_below_gamma():
    stage = ABLIsolation(tiny.classifier(), gamma=100.0)
    steps = tiny.recorded(stage)
    tiny.fit(stage, tiny.data(tiny.attack()), limit_train_batches=1)
    assert steps[0]["batch"]["view"] == "train"
    assert steps[0]["loss"] < 0  # below gamma the sign is negative
    anew = ABLIsolation(tiny.classifier(seed=1))
    anew.configure_model()
    assert "net.conv1.weight" in tiny.moved(tiny.tensors(tiny.classifier(seed=1)), tiny.tensors(anew.classifier))


def test_training_leaves_isolated_rows_out(tmp_path):
    stage = ABLTraining(parts.backdoored(), batch_norm="eval")
    steps = tiny.recorded(stage)
    tiny.fit(stage, questioned(chosen(tmp_path / "rows", POISONED)), limit_train_batches=1)
    batch, net = steps[0]["batch"], parts.backdoored()
    kept = torch.tensor([int(row) not in POISONED for row in batch["index"]])
    assert 0 < kept.sum() < 16
    expected = F.cross_entropy(net.train(False)(batch["image"][kept]), batch["label"][kept])
    torch.testing.assert_close(steps[0]["loss"], expected.detach())


def test_unlearning_is_the_difference_of_both_means_over_an_epoch(tmp_path):
    stage = ABLUnlearning(parts.backdoored(), optimizer=lambda p: torch.optim.SGD(p, lr=0.0), batch_norm="eval")
    steps = tiny.recorded(stage)
    tiny.fit(stage, questioned(chosen(tmp_path / "rows", POISONED)))
    net, parts_of_it = parts.backdoored().eval(), {True: [], False: []}
    for step in steps:
        each = F.cross_entropy(net(step["batch"]["image"]), step["batch"]["label"], reduction="none")
        for row, loss in zip(step["batch"]["index"].tolist(), each.tolist(), strict=True):
            parts_of_it[row in POISONED].append(loss)
    means = {isolated: sum(losses) / len(losses) for isolated, losses in parts_of_it.items()}
    found = sum(float(step["loss"]) for step in steps) / len(steps)
    assert found == pytest.approx(means[False] - means[True], rel=1e-4)


def test_ascent_climbs_on_the_isolated_rows_only(tmp_path):
    stage = ABLAscent(parts.backdoored(), optimizer=slow, batch_norm="eval")
    steps = tiny.recorded(stage)
    tiny.fit(stage, questioned(chosen(tmp_path / "rows", POISONED)))
    batch, net = steps[0]["batch"], parts.backdoored().eval()
    assert sorted(batch["index"].tolist()) == POISONED
    assert (batch["label"] == 1).all()
    torch.testing.assert_close(steps[0]["loss"], -F.cross_entropy(net(batch["image"]), batch["label"]).detach())
    tiny.fit(stage, questioned(chosen(tmp_path / "again", POISONED)), max_epochs=30)
    assert parts.rates(stage.result(), parts.faint)[1] == 0.0


def test_toy_is_cleaned_where_poisoned_rows_were_isolated(tmp_path):
    stage = ABLUnlearning(parts.backdoored(), optimizer=slow, batch_norm="eval")
    tiny.fit(stage, questioned(chosen(tmp_path / "rows", POISONED)), max_epochs=30)
    assert parts.rates(stage.result(), parts.faint) == (1.0, 0.0)


def test_toy_stays_backdoored_where_none_of_them_were(tmp_path):
    stage = ABLTraining(parts.backdoored(), optimizer=slow, batch_norm="eval")
    tiny.fit(stage, questioned(chosen(tmp_path / "rows", [17, 19])), max_epochs=5)
    assert parts.rates(stage.result(), parts.faint) == (1.0, 1.0)


def test_flags_and_target_do_not_reach_it(tmp_path):
    """The poisoned images are the data; without flags, clean labels and the triggered view the weights are equal."""
    for cls in (ABLIsolation, ABLTraining, ABLUnlearning, ABLAscent):
        ran = []
        for known in (True, False):
            datamodule = tiny.data(tiny.attack(), suspicious=chosen(tmp_path / f"{cls.__name__}{known}", [0, 1, 4]))
            datamodule.setup()
            if not known:
                prepared = datamodule.images

                def images(batch, training=False, prepared=prepared):
                    return {k: v for k, v in prepared(batch, training).items() if k not in ("role", "clean_label")}

                datamodule.images = images
                del datamodule._views["triggered"]
            index = datamodule.get_view("questioned").index[[0, 1, 4]]
            datamodule.suspicious = chosen(tmp_path / f"{cls.__name__}{known}", index.tolist())
            ran.append(tiny.tensors(tiny.fit(cls(tiny.classifier()), datamodule, max_epochs=2)))
        assert parts.equal(*ran)


@pytest.mark.parametrize("cls", [ABLIsolation, ABLTraining, ABLUnlearning, ABLAscent])
def test_resumed_run_equals_one_that_was_not_stopped(cls, tmp_path):
    data = tiny.data()
    data.setup()
    rows = chosen(tmp_path / "rows", data.get_view("questioned").index[:5].tolist())
    assert parts.equal(*parts.resumed(lambda: cls(tiny.classifier()), tmp_path, suspicious=rows))
