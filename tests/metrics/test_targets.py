import torch

from lit_backdoor.metrics import TargetVotes, detection_success_rate, target_votes


def test_the_first_of_equals_wins():
    assert target_votes(torch.tensor([4, 2, 4, 2, 1]), 5)["target"] == 2


def test_a_run_that_named_no_class_is_a_failure():
    assert detection_success_rate(torch.tensor([-1, 3]), torch.tensor([0, 3])) == 0.5


def test_votes_cover_every_batch():
    metric = TargetVotes(num_classes=3)
    metric.update(torch.tensor([0, 0, 1]))
    metric.update(torch.tensor([1, 1, 2]))
    found = metric.compute()
    assert found["target"] == 1
    assert found["share"] == 0.5
