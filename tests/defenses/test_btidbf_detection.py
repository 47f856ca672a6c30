import csv

import pytest
import torch
from btidbf_parts import data, suspect, trainer, unet

from lit_backdoor.bundle import open_bundle, save_bundle
from lit_backdoor.defenses.btidbf import BTIDBFDetection
from lit_backdoor.functional.decoupling import lost_confidence
from lit_backdoor.metrics import input_detection_scores
from lit_backdoor.models import Purified
from lit_backdoor.stages import BundleWriter, Evaluation


def purified():
    torch.manual_seed(4)
    net = Purified(unet(), suspect())
    with torch.no_grad():
        net.purifier.last.weight.mul_(300)  # so that some predictions change
    return net.eval()


def test_lost_confidence_against_softmax():
    before = torch.tensor([[2.0, 0.0], [0.0, 1.0], [3.0, 0.0]])
    after = torch.tensor([[1.0, 0.5], [2.0, 0.0], [5.0, 0.0]])
    scores, flags = lost_confidence(before, after)
    old, new = before.softmax(1), after.softmax(1)
    expected = torch.stack([1 - new[0, 0] / old[0, 0], 1 - new[1, 1] / old[1, 1], torch.tensor(0.0)])
    assert torch.allclose(scores, expected, atol=1e-6)
    assert flags.tolist() == [False, True, False]


def test_predict_writes_a_table_and_test_measures(tmp_path):
    save_bundle(tmp_path / "clean", kind="suspect", module=purified())
    stage = BTIDBFDetection(str(tmp_path / "clean"), table=str(tmp_path / "inputs.csv"))
    module = data(view=["clean", "triggered"])
    trainer(1, callbacks=[BundleWriter(str(tmp_path / "detector"))]).predict(stage, datamodule=module)
    rows = list(csv.DictReader((tmp_path / "inputs.csv").open()))
    assert list(rows[0]) == ["view", "index", "before", "after", "flagged", "score"]
    assert [(row["view"], int(row["index"])) for row in rows] == [
        (view, index) for view in ("clean", "triggered") for index in range(20)
    ]
    assert all((row["before"] != row["after"]) == (row["flagged"] == "1") for row in rows)

    scores = torch.tensor([float(row["score"]) for row in rows])
    flags = torch.tensor([row["flagged"] == "1" for row in rows])
    expected = input_detection_scores(scores, flags, torch.arange(40) >= 20)
    bundle = open_bundle(tmp_path / "detector", "detector")
    assert bundle.numbers["flagged_share"] == pytest.approx(float(flags.double().mean()))
    for tested in (BTIDBFDetection(str(tmp_path / "clean")), Evaluation(str(bundle.path))):
        tester = trainer(1)
        tester.test(tested, datamodule=data(), verbose=False)
        for name, value in expected.items():
            assert float(tester.callback_metrics[f"test/{name}"]) == pytest.approx(float(value), abs=1e-5, nan_ok=True)


def test_a_suspect_without_purifier_is_an_error():
    with pytest.raises(ValueError, match="Expected a suspect behind a purifier"):
        trainer(1).predict(BTIDBFDetection(suspect()), datamodule=data())
