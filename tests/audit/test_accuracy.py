import pytest
import torch
from audit_parts import OPTIONS, OUTPUTS, Bands, bands, image_folder, saved
from scipy.stats import binom
from tiny import CLASSES, SIZE
from torch import nn

from lit_backdoor.audit import run_audit
from lit_backdoor.audit.accuracy import check_accuracy, measure_accuracy
from lit_backdoor.audit.images import open_images
from lit_backdoor.models import load_classifier


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    return open_images(image_folder(tmp_path_factory.mktemp("images") / "mine", 12), OUTPUTS, 4)


def checked(images, tmp_path, net=None, **options):
    classifier = load_classifier(saved(tmp_path / "net.safetensors", net), **{**OPTIONS, **options})
    return check_accuracy(classifier, images, images.pixels(classifier.input_size))


def test_p_value_is_that_of_the_binomial_distribution():
    labels, answers = torch.arange(40) % 4, torch.arange(40) % 4
    answers[:10] = (labels[:10] + 1) % 4
    found = measure_accuracy(answers, labels, 4)
    chance = sum(float((answers == c).float().mean() * (labels == c).float().mean()) for c in range(4))
    assert (found.value, found.chance) == (0.75, pytest.approx(chance))
    assert found.p_value == pytest.approx(binom.sf(29, 40, chance))


def test_one_answer_to_everything_is_chance_however_often_it_is_right():
    labels = torch.tensor([2] * 90 + [0] * 10)
    found = measure_accuracy(torch.full((100,), 2), labels, 4)
    assert (found.value, found.chance) == (pytest.approx(0.9), pytest.approx(0.9))
    assert found.p_value > 0.1


def test_model_that_knows_its_classes_passes(images, tmp_path):
    assert checked(images, tmp_path).value == 1


def test_constant_model_is_named(images, tmp_path):
    net = bands()
    with torch.no_grad():
        net.fc.bias[1] = 1e4
    with pytest.raises(ValueError, match=r"better than chance.* It answers 'upper' on every image\..* No usual"):
        checked(images, tmp_path, net)


def test_normalization_that_fits_is_named(images, tmp_path):
    net = bands()
    with torch.no_grad():  # knows classes of images in 0 to 255 only: smaller ones drown in the bias
        net.fc.bias[0] = 400.0
    options = {"mean": [0.5] * 3, "std": [0.5] * 3}
    with pytest.raises(
        ValueError, match=r"It is 1\.000 with --mean 0 0 0 --std 0\.0039\d* .* \(normalization 0 to 255\)"
    ):
        checked(images, tmp_path, net, **options)


class Gray(Bands):
    """For images of one channel."""

    def __init__(self, num_classes=CLASSES):
        super().__init__(num_classes)
        self.conv = nn.Conv2d(1, num_classes, SIZE, bias=False)


def test_normalization_of_gray_images_is_named(images, tmp_path):
    net, state = Gray(), bands().state_dict()
    state["conv.weight"] = state["conv.weight"].sum(1, keepdim=True)
    state["fc.bias"][0] = 400.0
    net.load_state_dict(state)
    options = {"arch": f"{__name__}.Gray", "mean": [0.5], "std": [0.5]}
    with pytest.raises(ValueError, match=r"It is 1\.000 with --mean 0 --std 0\.0039\d* \(normalization 0 to 255\)"):
        checked(images, tmp_path, net, **options)


def test_another_order_of_the_classes_is_named(images, tmp_path):
    net = bands()
    with torch.no_grad():
        net.fc.weight.copy_(net.fc.weight.roll(1, 0))
    with pytest.raises(ValueError, match=r"It is 1\.000 if the outputs stand for the classes in another order"):
        checked(images, tmp_path, net)


def test_noise_fits_nothing(images, tmp_path):
    net = bands()
    with torch.no_grad():
        net.conv.weight.normal_(generator=torch.Generator().manual_seed(0))
        net.conv.weight -= net.conv.weight.mean(3, keepdim=True)  # blind to how bright a row is
    with pytest.raises(ValueError, match="No usual normalization helps"):
        checked(images, tmp_path, net)


class Closed(Bands):
    """Gives no gradients."""

    @torch.no_grad()
    def forward(self, images):
        return super().forward(images)


def test_net_without_gradients_is_refused(tmp_path):
    options = {**OPTIONS, "arch": f"{__name__}.Closed"}
    with pytest.raises(ValueError, match="logits have gradients by its images.*Take torch.no_grad"):
        run_audit(saved(tmp_path / "w.safetensors"), image_folder(tmp_path / "images"), tmp_path / "out",
                  **{**options, "classes": OUTPUTS})  # fmt: skip
    assert not (tmp_path / "out").exists()
