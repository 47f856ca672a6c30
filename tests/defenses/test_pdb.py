"""PDB: its training set, and the backdoor that its stamp overrules."""

import pytest
import scratch_parts as parts
import tiny
import torch
from repair_parts import fast
from torch.nn import functional as F

from lit_backdoor.bundle import open_bundle
from lit_backdoor.data import Split
from lit_backdoor.defenses.pdb import ProactiveTraining


def made(**options):
    return ProactiveTraining(tiny.classifier(), **{"size": 5, "schedule": "constant", **options})


def test_stamped_root_images_join_under_shifted_labels():
    stage = made(optimizer=parts.still, repeats=1.5)
    steps = tiny.recorded(stage)
    tiny.fit(stage, tiny.data(tiny.attack()), limit_train_batches=1)
    batch, net = steps[0]["batch"], stage.stamped.classifier.train()
    root = {key: batch["root"][key][:12] for key in ("image", "label")}  # 1.5 * 24 * 24 / 72
    stamped = root["image"].clone()
    stamped[:, :, :5, :5] = 2
    shifted = torch.tensor([{0: 1, 1: 2, 2: 3, 3: 0}[label] for label in root["label"].tolist()])
    assert batch["view"] == "train"
    expected = F.cross_entropy(net(torch.cat((batch["image"], stamped))), torch.cat((batch["label"], shifted)))
    torch.testing.assert_close(steps[0]["loss"], expected.detach(), rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_backdoor_is_overruled_by_the_stamp_and_only_by_it(tmp_path):
    stage = parts.trained(made(optimizer=fast), parts.low_attack(), epochs=25, split=Split(root_pool=48))
    cleaned = parts.low_rates(stage.result())
    assert cleaned[0] > 0.8
    assert cleaned[1] < 0.3
    assert parts.low_rates(stage.stamped.classifier)[1] > 0.7
    stage.export(tmp_path / "bundle")
    images = torch.rand(5, 3, 16, 16)
    torch.testing.assert_close(open_bundle(tmp_path / "bundle").build()(images), stage.result().eval()(images))


def test_flags_and_target_do_not_reach_it():
    assert not parts.differs_without_flags(made)


@pytest.mark.parametrize("options", [{"size": 0}, {"repeats": 0.0}, {"value": float("inf")}])
def test_numbers_out_of_range_are_refused(options):
    with pytest.raises(ValueError, match="Expected size of at least 1, repeats above 0 and a finite value"):
        made(**options)
