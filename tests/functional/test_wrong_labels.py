"""Labels that are wrong on purpose."""

import torch

from lit_backdoor.functional.wrong_labels import wrong_labels


def test_every_other_class_is_drawn_equally_often_and_the_true_one_never():
    torch.manual_seed(0)
    labels = torch.arange(4).repeat(3000)
    drawn = wrong_labels(labels, 4)
    counts = torch.zeros(4, 4).index_put((labels, drawn), torch.ones(12000), accumulate=True)
    assert not counts.diagonal().any()
    off = counts[~torch.eye(4, dtype=torch.bool)]
    assert ((off - 1000).abs() < 120).all()
