"""The first check: a model that is no better than chance on the person's images cannot be audited on them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from scipy.optimize import linear_sum_assignment
from scipy.stats import binomtest
from torch import Tensor

from lit_backdoor.audit.images import Images
from lit_backdoor.models import Classifier
from lit_backdoor.models.base import CIFAR_MEAN, CIFAR_STD, evaluating

__all__ = ["LEVEL", "Accuracy", "check_accuracy", "check_gradients", "measure_accuracy", "predict"]

LEVEL = 0.001
_ANY = {"none": (0.0, 1.0), "to [-1, 1]": (0.5, 0.5), "0 to 255": (0.0, 1 / 255)}  # the same for each channel
_OWN: dict[str, tuple[tuple[float, ...], tuple[float, ...]]] = {
    "ImageNet's": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "CIFAR-10's": (CIFAR_MEAN, CIFAR_STD),
    "MNIST's": ((0.1307,), (0.3081,)),
}
_SIZES = (32, 64, 224)
_TRIED = 256  # images for each other reading
_BATCH = 32


@dataclass(frozen=True)
class Accuracy:
    """How often a model is right.

    Attributes:
        correct: Images classified as their class.
        count: Images.
        chance: Accuracy of drawing answers as often as the model gives them, whatever the image.
        p_value: Of so many correct answers by chance, one-sided binomial.
        answers: Images that were given each output, int64 ``[C]``.
    """

    correct: int
    count: int
    chance: float
    p_value: float
    answers: Tensor

    @property
    def value(self) -> float:
        """The share of correct answers."""
        return self.correct / self.count


def measure_accuracy(answers: Tensor, labels: Tensor, num_classes: int) -> Accuracy:
    """Compare answers with labels, both int64 ``[N]``.

    Chance is the agreement of two independent draws from the answers and from the labels, as in Cohen's kappa: a model
    that gives one answer always is right as often as that class occurs, and that is chance.
    """
    count, correct = len(labels), int((answers == labels).sum())
    given, true = (each.bincount(minlength=num_classes).double() / count for each in (answers, labels))
    chance = min(1.0, float((given * true).sum()))
    p_value = float(binomtest(correct, count, chance, alternative="greater").pvalue)
    return Accuracy(correct, count, chance, p_value, answers.bincount(minlength=num_classes))


def check_accuracy(classifier: Classifier, images: Images, pixels: Tensor) -> Accuracy:
    """Measure the accuracy and check that it is above chance.

    Args:
        classifier: The model.
        images: The images, for other sizes.
        pixels: They at the model's size, uint8 ``[N, C, H, W]``.

    Raises:
        ValueError: If it is not; says what is likely wrong, and which normalization, size or order of classes fits.
    """
    answers = predict(classifier, pixels)
    found = measure_accuracy(answers, images.labels, classifier.num_classes)
    if found.p_value < LEVEL:
        return found
    head = (
        f"Expected a model that is better than chance on the images, got an accuracy of {found.value:.3f} on "
        f"{found.count} images (chance {found.chance:.3f}, p = {found.p_value:.2g}): whatever a detector said would "
        "mean nothing. "
    )
    if int(found.answers.max()) == found.count:
        head += f"It answers '{images.names[int(found.answers.argmax())]}' on every image. "
    raise ValueError(head + _advice(classifier, images, answers))


def check_gradients(classifier: Classifier, pixels: Tensor) -> None:
    """Check that a model's answers have gradients by its images, by which detectors and defenses work.

    Raises:
        ValueError: If they have not.
    """
    images = (pixels[:2].to(next(iter(classifier.state_dict().values())).device).float() / 255).requires_grad_()
    try:
        with evaluating(classifier), torch.enable_grad():
            torch.autograd.grad(classifier(images).sum(), images)
    except RuntimeError as error:
        raise ValueError(
            f"Expected a net whose logits have gradients by its images, got none ({str(error).splitlines()[0]}). Take "
            "torch.no_grad, detach and the like out of its forward."
        ) from error


def predict(classifier: Classifier, pixels: Tensor) -> Tensor:
    """Give the answers of a model to images, uint8 or float in [0, 1], int64 ``[N]``."""
    device = next(iter(classifier.state_dict().values())).device
    parts = []
    with evaluating(classifier):
        for batch in torch.split(pixels, _BATCH):
            floats = batch.to(device).float()
            parts.append(classifier(floats / 255 if batch.dtype == torch.uint8 else floats).argmax(1).cpu())
    return torch.cat(parts)


def _advice(classifier: Classifier, images: Images, answers: Tensor) -> str:
    """Try other readings of the images and say which one fits best, if any is above chance."""
    fitting = max(_readings(classifier, images), key=lambda reading: reading[0], default=None)
    if fitting is not None:
        return f"It is {fitting[0]:.3f} with {fitting[1]}."
    if (matched := _reordered(answers, images.labels, classifier.num_classes)) is not None:
        return (
            f"It is {matched:.3f} if the outputs stand for the classes in another order: give --classes FILE, the "
            "names in the order of the outputs."
        )
    usual, sizes = _normalizations(len(classifier.mean)), _sizes(classifier, images)
    tried = f"{', '.join(usual)} at {', '.join(map(str, sizes))} px"
    return (
        f"No usual normalization helps ({tried}), nor another order of the classes. Check that the images are of the "
        "model's classes, and --arch, --size, --mean, --std and --classes."
    )


def _readings(classifier: Classifier, images: Images) -> Iterator[tuple[float, str]]:
    """Try every normalization at every size; gives accuracies above chance, and the options that say so."""
    step = max(1, len(images.index) // _TRIED)
    labels = images.labels[::step]
    own_mean, own_std = (torch.tensor(each).view(-1, 1, 1) for each in (classifier.mean, classifier.std))
    for size in _sizes(classifier, images):
        floats = images.pixels(size)[::step].float() / 255
        for name, (mean, std) in _normalizations(len(classifier.mean)).items():
            # the classifier takes off its own mean; what it gets makes up for that
            seen = (floats - torch.tensor(mean).view(-1, 1, 1)) / torch.tensor(std).view(-1, 1, 1) * own_std + own_mean
            try:
                found = measure_accuracy(predict(classifier, seen), labels, classifier.num_classes)
            except (RuntimeError, ValueError, AssertionError):  # the net takes no images of that size
                break
            if found.p_value < LEVEL:
                written = [" ".join(f"{value:.4g}" for value in each) for each in (mean, std)]
                size_said = "" if size == classifier.input_size else f"--size {size} "
                yield found.value, f"{size_said}--mean {written[0]} --std {written[1]} (normalization {name})"


def _normalizations(channels: int) -> dict[str, tuple[tuple[float, ...], tuple[float, ...]]]:
    """Give the usual means and stds of images with so many channels, by name."""
    alike = {name: ((mean,) * channels, (std,) * channels) for name, (mean, std) in _ANY.items()}
    return alike | {name: pair for name, pair in _OWN.items() if len(pair[0]) == channels}


def _sizes(classifier: Classifier, images: Images) -> tuple[int, ...]:
    """Give the sizes that are tried: the model's, the images' own, usual ones."""
    return tuple(
        dict.fromkeys((classifier.input_size, *(s for s in (images.native_size, *_SIZES) if s <= max(_SIZES))))
    )


def _reordered(answers: Tensor, labels: Tensor, num_classes: int) -> float | None:
    """Match outputs and classes anew on every second image; gives the accuracy on the rest if it is above chance."""
    confusion = torch.zeros(num_classes, num_classes).index_put_(
        (answers[::2], labels[::2]), torch.ones(len(answers[::2])), accumulate=True
    )
    outputs, classes = linear_sum_assignment(confusion.numpy(), maximize=True)
    order = torch.zeros(num_classes, dtype=torch.int64)
    order[torch.as_tensor(outputs)] = torch.as_tensor(classes)
    found = measure_accuracy(order[answers[1::2]], labels[1::2], num_classes)
    return found.value if found.p_value < LEVEL else None
