import torch

from lit_backdoor.models.compose import Purified
from lit_backdoor.models.timm_classifier import TimmClassifier
from lit_backdoor.models.unet import UNet
from lit_backdoor.recipe import recipe

IMAGES = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def make():
    torch.manual_seed(0)
    return Purified(UNet(base=4, start="random"), TimmClassifier(channels=4, num_classes=7)).eval()


def test_the_classifier_sees_purified_images():
    purified = make()
    expected = purified.classifier(purified.purifier(IMAGES))
    torch.testing.assert_close(purified(IMAGES), expected)
    torch.testing.assert_close(purified.head(purified.features(IMAGES)), expected)
    assert not torch.allclose(purified(IMAGES), purified.classifier(IMAGES))


def test_layers_and_sizes_are_the_classifiers():
    purified = make()
    assert purified.last_layers(1) == ["layer4.1.conv2"]
    assert (purified.num_classes, purified.input_size) == (7, 32)
    assert purified.final_linear is purified.classifier.final_linear
    tap = purified.taps(IMAGES, ["layer2"])["layer2"]
    torch.testing.assert_close(tap, purified.classifier.taps(purified.purifier(IMAGES), ["layer2"])["layer2"])


def test_the_recipe_names_both_parts():
    described = recipe(make())["init_args"]
    assert described["purifier"]["init_args"]["base"] == 4
    assert described["classifier"]["init_args"]["num_classes"] == 7
