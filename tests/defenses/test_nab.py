"""NAB: its training set, a set on which it removes the backdoor and one on which it cannot."""

import pytest
import scratch_parts as parts
import tiny
import torch
from repair_parts import fast, measured
from torch.nn import functional as F

from lit_backdoor.bundle import open_bundle
from lit_backdoor.defenses.nab import NonAdversarialTraining, PseudoLabeling
from lit_backdoor.triggers import Role


def made(**options):
    return NonAdversarialTraining(tiny.classifier(), parts.bands(), **{"schedule": "constant", **options})


def test_suspicious_rows_whose_label_the_labeler_contests_are_stamped_and_relabeled(tmp_path):
    poisoned = parts.rows_by_role(Role.POISON)
    chosen = torch.cat((poisoned, parts.rows_by_role()[:20]))
    stage = made(optimizer=parts.still)
    steps = tiny.recorded(stage)
    parts.trained(stage, epochs=1, suspicious=parts.selection(tmp_path / "rows", chosen))
    batch, labeler, net = steps[0]["batch"], parts.bands(), stage.classifier.classifier.train()
    images, labels = batch["image"].clone(), batch["label"].clone()
    changed = 0
    for row, index in enumerate(batch["index"].tolist()):
        truth = int(labeler(batch["image"][row : row + 1]).argmax())
        if index in chosen.tolist() and truth != int(labels[row]):
            images[row, :, :2, :2] = torch.tensor(net.mean).view(3, 1, 1)
            labels[row] = truth
            changed += 1
    assert changed > 0
    torch.testing.assert_close(steps[0]["loss"], F.cross_entropy(net(images), labels).detach(), rtol=1e-4, atol=1e-5)
    assert 0 < stage.numbers()["stamped_rows"] <= len(poisoned)


@pytest.mark.slow
def test_backdoor_is_overruled_by_the_stamp_where_most_poisoned_rows_were_isolated(tmp_path):
    poisoned = parts.rows_by_role(Role.POISON, parts.low_attack())
    rows = parts.selection(tmp_path / "rows", poisoned[: 2 * len(poisoned) // 3])
    stage = parts.trained(made(optimizer=fast, size=5), parts.low_attack(), epochs=16, suspicious=rows)
    cleaned, without = parts.low_rates(stage.result()), parts.low_rates(stage.result().classifier)
    assert cleaned[0] > 0.8
    assert cleaned[1] < min(0.3, without[1])
    stage.export(tmp_path / "bundle")
    images = torch.rand(5, 3, 16, 16)
    torch.testing.assert_close(open_bundle(tmp_path / "bundle").build()(images), stage.result().eval()(images))


def test_backdoor_stays_where_clean_rows_were_isolated(tmp_path):
    rows = parts.selection(tmp_path / "rows", parts.rows_by_role()[:40])
    stage = parts.trained(made(optimizer=fast), suspicious=rows)
    assert stage.numbers() == {"stamped_rows": 0}
    assert measured(stage.result())[1] > 0.8


def test_labeler_sees_root_images_only():
    stage = PseudoLabeling(tiny.classifier())
    steps = tiny.recorded(stage)
    tiny.fit(stage, tiny.data(tiny.attack()))
    assert {step["batch"]["view"] for step in steps} == {"root"}


def test_flags_and_target_do_not_reach_it(tmp_path):
    data = tiny.data(tiny.attack())
    rows = parts.selection(tmp_path / "rows", data.get_view("questioned").index[:9])
    assert not parts.differs_without_flags(made, suspicious=rows)


def test_bad_size_is_refused():
    with pytest.raises(ValueError, match="Expected size of at least 1"):
        made(size=0)
