"""CLP: its bounds, a net whose outlier it prunes and one that it leaves as it is."""

import pruning_parts as parts
import pytest
import tiny
import torch
from torch import nn

from lit_backdoor.defenses.clp import CLP
from lit_backdoor.models import wrap_classifier
from lit_backdoor.models.channels import producers


def pruned(stage, datamodule=None):
    tiny.trainer().predict(stage, datamodule=datamodule or tiny.data(), return_predictions=False)
    return stage


def spiked():
    """A net in which channel 5 of the first norm amplifies what it sees 50 times."""
    net = tiny.classifier(channels=16)
    net.net.bn1.weight.data[5] = 50
    return net


def test_scores_are_those_of_each_layer_by_hand():
    stage = CLP(tiny.classifier())
    stage.configure_model()
    by_hand = []
    for conv, norm in stage.pairs:
        bounds = []
        for channel in range(norm.num_features):
            kernels = (
                conv.weight[channel].double() * norm.weight[channel] / (norm.running_var[channel] + norm.eps) ** 0.5
            )
            bounds.append(torch.linalg.svdvals(kernels.reshape(kernels.shape[0], -1)).max())
        bounds = torch.stack(bounds)
        by_hand.append((bounds - bounds.mean()) / bounds.std())
    torch.testing.assert_close(stage.scores().double(), torch.cat(by_hand).detach(), rtol=1e-4, atol=1e-4)


def test_channel_that_stands_out_is_pruned_and_nothing_else():
    stage = pruned(CLP(spiked()))
    norm = stage.result().net.bn1
    assert norm.weight[5] == norm.bias[5] == 0
    assert "net.bn1.weight" in tiny.moved(tiny.tensors(spiked()), tiny.tensors(stage.result()))
    assert stage.outcome().numbers["pruned_channels"] == sum(
        int((m.weight == 0).sum()) for m in stage.result().modules() if isinstance(m, nn.BatchNorm2d)
    )


def test_net_without_outliers_goes_on_unchanged():
    stage = pruned(CLP(parts.backdoored()), parts.data())  # with two channels none is three deviations from their mean
    assert not tiny.moved(tiny.tensors(parts.backdoored()), tiny.tensors(stage.result()))
    assert parts.rates(stage.result()) == (1.0, 1.0)


def test_norms_are_paired_by_what_they_take():
    """Not by their order: here the norm after an addition has no convolution of its own, and order would shift the rest."""

    class Branches(nn.Module):
        def __init__(self):
            super().__init__()
            self.sum_norm, self.norm = nn.BatchNorm2d(4), nn.BatchNorm2d(4)
            self.left, self.right = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 1)
            self.head = nn.Linear(4, 4)

        def forward(self, images):
            left = self.left(images)
            seen = self.sum_norm(left + left)
            return self.head(self.norm(self.right(seen)).mean((2, 3)))

    net = Branches()
    wrapped = wrap_classifier(net, split="norm", num_classes=4, input_size=16, mean=(0.0,) * 3, std=(1.0,) * 3)
    assert producers(wrapped) == [(net.right, net.norm)]


def test_nothing_of_the_attack_reaches_it():
    assert parts.equal(*parts.without_attack(lambda: CLP(spiked()), fit=False))


def test_bad_arguments_are_refused():
    with pytest.raises(ValueError, match="Expected u above 0"):
        CLP(tiny.classifier(), u=0)
    plain = nn.Sequential(nn.Conv2d(3, 4, 16), nn.Flatten())
    net = wrap_classifier(plain, split="0", num_classes=4, input_size=16, mean=(0.0,) * 3, std=(1.0,) * 3)
    with pytest.raises(ValueError, match="Expected batch norms that follow a convolution"):
        pruned(CLP(net))
