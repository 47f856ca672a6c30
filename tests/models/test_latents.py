import pytest
import tiny
import torch
from torch import nn

from lit_backdoor.models import TimmClassifier, wrap_classifier
from lit_backdoor.models.latents import check_final_linear, latents_and_logits

MEAN, STD = (0.5, 0.5, 0.5), (0.2, 0.2, 0.2)


def foreign(*end, num_classes=4):
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), *end)
    return wrap_classifier(net, split="0", num_classes=num_classes, input_size=8, mean=MEAN, std=STD)


@pytest.mark.parametrize(
    ("name", "options"),
    [("resnet18", {"channels": 4}), ("vit_tiny_patch16_224", {"channels": 32, "net_args": {"depth": 2}})],
)
def test_final_layer_makes_the_logits_of_the_latents(name, options):
    classifier = TimmClassifier(name, num_classes=4, input_size=16, **options).eval()
    check_final_linear(classifier)
    images = torch.rand(3, 3, 16, 16)
    latents, logits = latents_and_logits(classifier, images)
    assert latents.shape == (3, classifier.final_linear.in_features)
    torch.testing.assert_close(logits, classifier(images))
    torch.testing.assert_close(classifier.final_linear(latents), logits)


def test_gradients_flow_and_no_hook_stays():
    classifier = tiny.classifier()
    images = torch.rand(2, 3, 16, 16, requires_grad=True)
    latents_and_logits(classifier, images)[0].sum().backward()
    assert images.grad.abs().sum() > 0
    assert not classifier.final_linear._forward_pre_hooks


def test_nets_without_a_final_linear_layer_are_refused():
    with pytest.raises(ValueError, match="hold a linear layer with 4 outputs, got none"):
        check_final_linear(foreign(nn.Conv2d(4, 4, 1), nn.Flatten()))
    with pytest.raises(ValueError, match="'3' to be the last, but its output is not the logits"):
        check_final_linear(foreign(nn.Flatten(), nn.Linear(4, 4), nn.Softmax(1)))


def test_linear_layer_that_does_more_than_its_weights_say_is_refused():
    class Cosine(nn.Linear):
        def forward(self, latents):
            return nn.functional.linear(nn.functional.normalize(latents), nn.functional.normalize(self.weight))

    with pytest.raises(ValueError, match="its output is not the logits.*a cosine classifier"):
        check_final_linear(foreign(nn.Flatten(), Cosine(4, 4, bias=False)))


def test_linear_layer_that_sees_more_than_a_vector_per_image_is_refused():
    class Places(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(4, 4)

        def forward(self, maps):
            return self.linear(maps.flatten(2).transpose(1, 2)).mean(1)

    classifier = foreign(Places())
    with pytest.raises(ValueError, match="one vector per image"):
        check_final_linear(classifier)
