import pytest
import tiny
import torch
from torch.nn import functional as F

from lit_backdoor.bundle import open_bundle
from lit_backdoor.stages import Evaluation, LowestLoss, OracleSelection
from lit_backdoor.triggers import Role


def selected(stage, datamodule):
    tiny.trainer().predict(stage, datamodule=datamodule, return_predictions=False)
    return stage.outcome().tensors


def test_lowest_losses_are_kept_lowest_first(victim):
    datamodule = tiny.data(tiny.attack())
    tensors = selected(LowestLoss(victim, share=0.25), datamodule)
    net, losses, rows = open_bundle(victim).build(), [], []
    with torch.no_grad():
        for batch in datamodule.loader("questioned"):
            batch = datamodule.images(batch)
            losses.append(F.cross_entropy(net(batch["image"]), batch["label"], reduction="none"))
            rows.append(batch["index"])
    losses, rows = torch.cat(losses), torch.cat(rows)
    assert torch.equal(tensors["rows"], rows.sort().values)
    assert torch.allclose(tensors["scores"], losses[rows.argsort()], atol=1e-5)
    assert len(tensors["indices"]) == round(0.25 * len(rows))
    assert set(tensors["indices"].tolist()) == set(rows[losses.argsort()[: len(tensors["indices"])]].tolist())
    kept = tensors["scores"][torch.searchsorted(tensors["rows"], tensors["indices"])]
    assert (kept.diff() >= 0).all()


def test_at_least_one_row_is_kept(victim):
    assert len(selected(LowestLoss(victim, share=1e-4), tiny.data(tiny.attack()))["indices"]) == 1


def test_second_pass_begins_anew(victim):
    stage, datamodule = LowestLoss(victim, share=0.1), tiny.data(tiny.attack())
    first = selected(stage, datamodule)
    assert torch.equal(selected(stage, datamodule)["rows"], first["rows"])


@pytest.mark.parametrize("precision", [1.0, 0.5, 0.0])
def test_oracle_has_its_precision(victim, precision, tmp_path):
    datamodule = tiny.data(tiny.attack())
    stage = OracleSelection(victim, share=0.2, precision=precision)
    indices = selected(stage, datamodule)["indices"]
    view = datamodule.get_view("questioned")
    poisoned = view.role[torch.searchsorted(view.index, indices)] == Role.POISON
    assert float(poisoned.float().mean()) == pytest.approx(precision, abs=0.5 / len(indices))
    assert len(indices.unique()) == len(indices) == round(0.2 * len(view))
    stage.export(tmp_path / "s")
    result = tiny.tested(Evaluation(str(tmp_path / "s")), datamodule)
    assert result["test/selection_precision"] == pytest.approx(float(poisoned.float().mean()))
    assert result["test/selection_recall"] == pytest.approx(int(poisoned.sum()) / int((view.role == Role.POISON).sum()))


def test_oracle_says_when_there_are_not_enough(victim):
    stage = OracleSelection(victim, share=0.9)
    with pytest.raises(ValueError, match=r"Expected a selection of .* Lower the share"):
        selected(stage, tiny.data(tiny.attack()))


@pytest.mark.parametrize("share", [0, 1, -0.1, 2])
def test_share_out_of_range(victim, share):
    with pytest.raises(ValueError, match=r"share of rows to select in \(0, 1\)"):
        LowestLoss(victim, share=share)


def test_clean_data_give_no_selection_numbers(victim, selection):
    assert tiny.tested(Evaluation(selection), tiny.data()) == {}


def test_second_test_begins_anew(selection):
    stage, other = Evaluation(selection), tiny.data(tiny.attack(seed=9))
    first = tiny.tested(stage, tiny.data(tiny.attack()))
    second = tiny.tested(stage, other)
    assert second == tiny.tested(Evaluation(selection), other) != first
