import pytest
import torch
from torch import nn

from lit_backdoor.models.foreign import WrappedClassifier
from lit_backdoor.models.split import check_split, choose_split, features_at, head_from

IMAGES = torch.rand(4, 3, 16, 16, generator=torch.Generator().manual_seed(0))
DUMMY = torch.zeros(1, 3, 16, 16)


class Skip(nn.Module):
    """Two layers, and a skip connection around the first one."""

    def __init__(self, weight=1.0):
        super().__init__()
        self.first = nn.Conv2d(3, 3, 3, padding=1)
        self.second = nn.Linear(3, 5)
        self.weight = weight

    def forward(self, x):
        return self.second((self.first(x) + self.weight * x).mean((2, 3)))


class Views(nn.Module):
    """Reads the batch's size off its input, and flattens by it."""

    def __init__(self):
        super().__init__()
        self.conv, self.pool, self.fc = nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(2), nn.Linear(16, 5)

    def forward(self, x):
        batch = x.size(0)
        return self.fc(self.pool(self.conv(x)).reshape(batch, -1))


def chain():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1),
        nn.BatchNorm2d(8),
        nn.Dropout(0.5),
        nn.ReLU(inplace=True),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Dropout(0.5),
        nn.Linear(8, 5),
    )


@pytest.mark.parametrize("split", ["0", "1", "4", "7"])
def test_head_of_features_is_the_net(split):
    net = chain().eval()
    check_split(net, split, (3, 16, 16))
    torch.testing.assert_close(head_from(net, split, features_at(net, split, IMAGES), DUMMY), net(IMAGES))


def test_in_train_mode_head_of_features_draws_and_counts_like_the_net():
    one, other = chain().train(), chain().train()
    torch.manual_seed(3)
    expected = one(IMAGES)
    torch.manual_seed(3)
    result = head_from(other, "4", features_at(other, "4", IMAGES), DUMMY)
    torch.testing.assert_close(result, expected)
    for key, value in one.state_dict().items():
        assert torch.equal(value, other.state_dict()[key]), key


def test_the_head_leaves_features_modes_and_gradients():
    net = chain().train()
    net[1].eval()
    features = features_at(net, "1", IMAGES).detach().requires_grad_()
    before = features.detach().clone()
    head_from(net, "1", features, DUMMY).sum().backward()
    assert torch.equal(features, before)  # though the ReLU behind it works in place
    assert features.grad is not None
    assert net[0].weight.grad is None
    assert net[7].weight.grad is not None
    assert net.training
    assert not net[1].training
    assert not any(module._forward_hooks for module in net.modules())


def test_an_error_in_the_head_restores_modes_and_gradients():
    net = chain().train()
    with pytest.raises(RuntimeError):
        head_from(net, "4", torch.zeros(2, 3, 1, 1), DUMMY)
    assert all(module.training for module in net.modules())
    assert torch.is_grad_enabled()


@pytest.mark.parametrize("weight", [1.0, 1e-3])
def test_a_skip_around_the_split_is_an_error_that_names_the_layer(weight):
    with pytest.raises(ValueError, match=r"'first': a skip connection goes around it. Give one of second"):
        check_split(Skip(weight), "first", (3, 16, 16))
    assert not check_split(Skip(weight), "second", (3, 16, 16))


def test_a_layer_that_runs_twice_is_an_error():
    relu = nn.ReLU()
    net = nn.Sequential(nn.Conv2d(3, 4, 1), relu, nn.Conv2d(4, 4, 1), relu, nn.Flatten(), nn.Linear(1024, 5))
    with pytest.raises(ValueError, match="runs 2 times"):
        check_split(net, "1", (3, 16, 16))


def test_a_layer_without_a_tensor_is_an_error():
    class Pair(nn.Module):
        def forward(self, x):
            return x, x

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.pair, self.last = Pair(), nn.Linear(3, 5)

        def forward(self, x):
            return self.last(self.pair(x)[0].mean((2, 3)))

    with pytest.raises(ValueError, match=r"'pair': its output is a tuple, not a tensor. Give one of last"):
        check_split(Net(), "pair", (3, 16, 16))


def test_an_unknown_layer_gives_the_nearest():
    with pytest.raises(ValueError, match=r"Unknown layer 'frist'. Did you mean 'first'"):
        check_split(Skip(), "frist", (3, 16, 16))


def test_the_number_of_logits_is_checked():
    with pytest.raises(ValueError, match=r"give \(2, 7\) logits for 2 images, got \(2, 5\)"):
        WrappedClassifier(chain(), "4", 7, 16, (0, 0, 0), (1, 1, 1))


def test_a_net_that_reads_the_batch_needs_as_many_images_as_features():
    net = Views()
    assert check_split(net, "conv", (3, 16, 16), outputs=5)
    assert not check_split(net, "fc", (3, 16, 16))
    assert choose_split(net, (3, 16, 16)) == "conv"
    features = features_at(net, "conv", IMAGES)
    torch.testing.assert_close(head_from(net, "conv", features, DUMMY.expand(4, -1, -1, -1)), net(IMAGES))


def test_a_skip_is_found_in_a_net_that_reads_the_batch():
    class Around(Views):
        def forward(self, x):
            return super().forward(x) + x.mean((1, 2, 3)).reshape(len(x), 1)

    with pytest.raises(ValueError, match="'conv': a skip connection goes around it"):
        check_split(Around(), "conv", (3, 16, 16))


def test_a_net_without_logits_is_an_error():
    class Pair(Views):
        def forward(self, x):
            return {"logits": super().forward(x)}

    with pytest.raises(ValueError, match="Expected Pair to give logits as a tensor, got dict"):
        choose_split(Pair(), (3, 16, 16))
