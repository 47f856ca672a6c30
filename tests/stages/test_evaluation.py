"""What the test of a suspect says, against counting by hand."""

import pytest
import tiny
import torch

from lit_backdoor.stages import Evaluation, PoisonedTraining
from lit_backdoor.triggers import AllToAll, OneToOne


@pytest.mark.parametrize("target", [1, 3])
def test_accuracy_on_the_attacks_class_is_that_of_its_rows(target):
    plan = tiny.attack()
    plan.target = target
    datamodule = tiny.data(plan)
    stage = PoisonedTraining(tiny.classifier(), optimizer=lambda p: torch.optim.Adam(p, lr=1e-2), schedule="constant")
    tiny.fit(stage, datamodule, max_epochs=3)
    result = tiny.tested(Evaluation(stage.classifier), datamodule)
    net, right, rows = stage.classifier.eval(), 0, 0
    for batch in map(datamodule.images, datamodule.loader("clean")):
        of_class = batch["valid"] & (batch["label"] == target)
        right += int((net(batch["image"]).argmax(1) == target)[of_class].sum())
        rows += int(of_class.sum())
    assert 0 < rows < 30
    assert result["test/acc_target"] == pytest.approx(right / rows, abs=1e-6)


@pytest.mark.parametrize(
    ("plan", "known"),
    [(None, False), (tiny.attack(policy=AllToAll()), False), (tiny.attack(policy=OneToOne(source=2)), True)],
    ids=["clean", "all-to-all", "one-to-one"],
)
def test_accuracy_on_the_attacks_class_is_absent_where_there_is_none(plan, known):
    result = tiny.tested(Evaluation(tiny.classifier()), tiny.data(plan))
    assert ("test/acc_target" in result) == known
