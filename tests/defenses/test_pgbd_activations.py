"""The space that PGBD works in: which layer's activations, pooled or not."""

import pytest
import tiny
import torch
from pgbd_parts import STATIC, fast, prototypes_of, run
from torch import nn

from lit_backdoor.defenses.pgbd import PGBD, Geometry
from lit_backdoor.models import TimmClassifier, wrap_classifier


def test_activation_is_that_of_the_last_convolution_before_the_shortcut():
    stage = run(PGBD(tiny.classifier(), 2, geometry=STATIC), 1)
    assert stage.space.layer == "layer4.1.conv2"
    expected = prototypes_of(tiny.classifier(), "layer4.1.conv2")
    torch.testing.assert_close(stage.prototypes, expected)
    torch.testing.assert_close(stage.vectors[0], expected[2] - expected)


def test_pooled_activations_are_averaged_over_positions():
    stage = run(PGBD(tiny.classifier(), 2, geometry=Geometry(update=0, pooled=True)), 1)
    maps = torch.rand(5, 7, 2, 2)
    stage.space.classifier.logits_and_taps = lambda images, names: (images, dict.fromkeys(names, maps))
    torch.testing.assert_close(stage.space(maps)[1], maps.flatten(2).mean(2))
    channels = tiny.classifier().net.get_submodule("layer4.1.conv2").out_channels
    assert stage.vectors.shape == (1, tiny.CLASSES, channels)


def test_net_without_convolutions_is_taken_at_its_split():
    torch.manual_seed(0)
    args = {"depth": 2, "img_size": tiny.SIZE, "patch_size": 4}
    vit = TimmClassifier("vit_tiny_patch16_224", tiny.CLASSES, tiny.SIZE, channels=32, net_args=args)
    stage = run(PGBD(vit, 1, optimizer=fast))
    assert stage.space.layer is None
    assert stage.vectors.shape == (1, tiny.CLASSES, 32)
    plain = nn.Sequential(nn.Flatten(), nn.Linear(3 * tiny.SIZE**2, 8), nn.ReLU(), nn.Linear(8, tiny.CLASSES))
    net = wrap_classifier(
        plain, split="1", num_classes=tiny.CLASSES, input_size=tiny.SIZE, mean=(0.5,) * 3, std=(0.25,) * 3
    )
    assert run(PGBD(net, 1, optimizer=fast)).vectors.shape == (1, tiny.CLASSES, 8)


def test_embedding_of_patches_is_not_taken_for_the_last_convolution():
    body = torch.nn.Sequential(
        torch.nn.Conv2d(3, 8, 8, stride=8), torch.nn.Flatten(), torch.nn.Linear(32, 16), torch.nn.ReLU(),
        torch.nn.Linear(16, tiny.CLASSES),
    )  # fmt: skip
    half = (0.5, 0.5, 0.5)
    net = wrap_classifier(body, split="3", num_classes=tiny.CLASSES, input_size=tiny.SIZE, mean=half, std=half)
    assert run(PGBD(net, 1)).space.shape == (16,)


def test_unknown_layer_is_refused_with_the_nearest():
    with pytest.raises(ValueError, match=r"'layer4.1.conv3'. Did you mean 'layer4.1.conv[12]'"):
        run(PGBD(tiny.classifier(), 0, geometry=Geometry(layer="layer4.1.conv3")))
