"""ML-MMDR: the loss and its gradients, and which rows and layers are compared."""

import pytest
import tiny
import torch
from pgbd_parts import fast, run
from torch import nn
from torch.nn import functional as F

from lit_backdoor.attacks import MultiLevelMMDTraining
from lit_backdoor.models import wrap_classifier
from lit_backdoor.triggers import AllToAll, Role

LAYERS = ["layer3", "layer4"]


def training(**options):
    return MultiLevelMMDTraining(tiny.classifier(), **{"optimizer": fast, "schedule": "constant", **options})


def mmd2(x, y):
    """Mean kernel within both samples less twice that between them, pair by pair in float64."""
    both = torch.cat([x, y]).flatten(1).double()
    squares = (both[:, None] - both).square().sum(-1)
    mean = squares.detach().sum() / (len(both) * (len(both) - 1))
    kernel = sum(torch.exp(-squares / (mean * 2.0**power)) for power in range(-2, 3))
    n = len(x)
    return kernel[:n, :n].mean() + kernel[n:, n:].mean() - 2 * kernel[:n, n:].mean()


def first_step(stage, plan):
    """Train one step; gives what was logged, and the batch as it was seen."""
    steps = tiny.recorded(stage)
    run(stage, 1, tiny.data(plan, batch_size=48), limit_train_batches=1)
    batch = steps[0].pop("batch")
    return {name: float(value) for name, value in steps[0].items()}, batch


@pytest.mark.parametrize("policy", [None, AllToAll()])
def test_loss_is_cross_entropy_and_the_levels_mmd_to_clean_rows_of_the_same_labels(policy):
    stage = training(layers=LAYERS, weight=0.7)
    logged, batch = first_step(stage, tiny.attack(policy=policy))
    labels, poisoned = batch["label"], batch["role"] == Role.POISON
    given = set(labels[poisoned].tolist())
    clean = torch.tensor([label in given for label in labels.tolist()]) & ~poisoned
    assert given == ({0} if policy is None else {0, 1, 2, 3})
    assert 2 < poisoned.sum() < 48 > clean.sum() > 2

    net = tiny.classifier().train()
    logits, taps = net.logits_and_taps(batch["image"], LAYERS)
    own, gap = F.cross_entropy(logits, labels), sum(mmd2(tap[poisoned], tap[clean]) for tap in taps.values())
    loss = own + 0.7 * gap
    for name, expected in (("classification", own), ("mmd", gap), ("loss", loss)):
        assert logged[name] == pytest.approx(float(expected.detach()), abs=1e-4)
    assert logged["mmd"] > 0.05
    expected = torch.autograd.grad(loss, list(net.parameters()))
    for weight, gradient in zip(stage.classifier.parameters(), expected, strict=True):
        torch.testing.assert_close(weight.grad, gradient, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    ("labels", "roles", "counts"),
    [
        ([0, 0, 1, 2], [0, 0, 0, 0], False),  # nothing poisoned
        ([0, 1, 1, 2], [1, 0, 0, 0], False),  # no clean row of the label
        ([0, 0, 1, 2], [1, 2, 0, 0], False),  # a cover alone
        ([0, 0, 1, 2], [1, 0, 0, 0], True),  # one of each
    ],
)
def test_batches_of_few_rows(labels, roles, counts):
    torch.manual_seed(0)
    features = [torch.randn(4, 3, 2, 2, requires_grad=True), torch.randn(4, 5, requires_grad=True)]
    gap = training().gap(features, torch.tensor(labels), torch.tensor(roles, dtype=torch.int8))
    assert bool(gap > 0) == counts
    if counts:
        gap.backward()
        moved = [level.grad.flatten(1).ne(0).any(1).tolist() for level in features]
        assert moved == [[True, True, False, False]] * 2
        assert all(level.grad.isfinite().all() for level in features)


def test_half_precision_features_are_compared_in_full():
    torch.manual_seed(0)
    labels, roles = torch.zeros(16).long(), torch.arange(16) % 2
    level = torch.randn(16, 8, 2, 2).bfloat16() + 30
    with torch.autocast("cpu", dtype=torch.bfloat16):
        gap = training().gap([level], labels, roles)
    assert gap.dtype == torch.float32
    assert float(gap) == pytest.approx(float(mmd2(level[1::2], level[::2])), abs=1e-4)


def test_batches_without_poisoned_rows_train_as_ever():
    """Of 24 batches of 4 rows, most lack one side or both."""
    stage = run(training(), 2, tiny.data(tiny.attack(rate=0.03), batch_size=4))
    assert all(weight.isfinite().all() for weight in stage.classifier.parameters())


def test_levels_are_blocks_or_convolutions_at_half_three_quarters_and_all_of_the_depth():
    def levels(classifier, **options):
        stage = MultiLevelMMDTraining(classifier, **options)
        stage.configure_model()
        return stage.levels

    def plain(*layers):
        net = nn.Sequential(*layers, nn.Flatten(), nn.LazyLinear(tiny.CLASSES))
        net(torch.zeros(1, 3, tiny.SIZE, tiny.SIZE))
        return wrap_classifier(
            net, split="0", num_classes=tiny.CLASSES, input_size=tiny.SIZE, mean=(0.5,) * 3, std=(0.25,) * 3
        )

    assert levels(tiny.classifier()) == ["layer2.1", "layer3.1", "layer4.1"]
    assert levels(tiny.classifier(), layers=["layer4.1.conv2"]) == ["layer4.1.conv2"]
    assert levels(plain(*(nn.Conv2d(3, 3, 3) for _ in range(6)))) == ["2", "4", "5"]
    assert levels(plain(nn.Conv2d(3, 3, 3))) == ["0"]
    with pytest.raises(ValueError, match="with blocks or convolutions, got Sequential. Name layers"):
        levels(plain(nn.ReLU()))


@pytest.mark.parametrize(
    ("options", "message"),
    [({"weight": -1.0}, "weight to be 0 or more, got -1"), ({"weight": float("nan")}, "0 or more, got nan"),
     ({"layers": []}, "at least one layer, got none")],
)  # fmt: skip
def test_options_out_of_range_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        training(**options)


def test_attack_is_needed():
    with pytest.raises(ValueError, match=r"data\.attack to be set"):
        run(training())


def test_unknown_layer_is_refused_with_the_nearest():
    with pytest.raises(ValueError, match="'layer5'. Did you mean 'layer"):
        run(training(layers=["layer5"]), 1, tiny.data(tiny.attack()))
