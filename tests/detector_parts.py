"""A toy whose trigger is a color in one pixel, and what tests of detectors of inputs share."""

import tiny
import torch
from sklearn.metrics import roc_auc_score
from torch import nn

from lit_backdoor.data import BackdoorDataModule, Split, TensorSource
from lit_backdoor.models import wrap_classifier


class Halves(nn.Module):
    """The brighter half says the class; a first pixel that is redder than blue leads to class 1."""

    def __init__(self):
        super().__init__()
        self.sum = nn.Identity()

    def forward(self, images):
        votes = 30 * (images[..., 4:].mean((1, 2, 3)) - images[..., :4].mean((1, 2, 3)))
        votes = votes + 1000 * (images[:, 0, 0, 0] - images[:, 2, 0, 0] - 0.2).relu()
        return self.sum(torch.stack((-votes, votes), 1))


def suspect():
    return wrap_classifier(Halves(), split="sum", num_classes=2, input_size=8, mean=(0.0,) * 3, std=(1.0,) * 3)


def images(count, seed=0):
    """Dark gray images, one half brighter than the other by a drawn amount, and their classes."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % 2
    found = 0.1 + 0.04 * torch.rand(count, 1, 8, 8, generator=generator)
    step = 0.05 + 0.1 * torch.rand(count, 1, 1, 1, generator=generator)
    found[labels == 0, ..., :4] += step[labels == 0]
    found[labels == 1, ..., 4:] += step[labels == 1]
    return found.expand(-1, 3, -1, -1).clone(), labels


def data():
    def part(count, seed):
        pixels, labels = images(count, seed)
        return (255 * pixels).round().to(torch.uint8), labels

    return BackdoorDataModule(
        TensorSource(part(80, 1), part(16, 2)), split=Split(root_pool=60), augment=None, batch_size=20, seed=3
    )


def colored(pixels, red=1.0, rest=0.0):
    """Images with the trigger: the first pixel is red."""
    found = pixels.clone()
    found[:, :, 0, 0] = torch.tensor([red, rest, rest])
    return found


def calibrated(stage):
    """A detector that took its threshold from root images."""
    tiny.trainer().predict(stage, datamodule=data(), return_predictions=False)
    return stage.result()


def judged(detector, trigger):
    """AUROC of a trigger on images of class 0, and the shares of triggered and of clean images that are flagged."""
    clean, labels = images(60, seed=5)
    with torch.no_grad():
        before, after = detector.judge(clean), detector.judge(trigger(clean[labels == 0]))
    truth = [0] * len(clean) + [1] * len(after["score"])
    auroc = roc_auc_score(truth, torch.cat((before["score"], after["score"])))
    return auroc, float(after["flagged"].float().mean()), float(before["flagged"].float().mean())


def without_attack(make):
    """The detectors of a stage run with an attack in the data, and without."""
    found = []
    for attack in (tiny.attack(), None):
        stage = make()
        tiny.trainer().predict(stage, datamodule=tiny.data(attack), return_predictions=False)
        found.append(tiny.tensors(stage.result()))
    return found
