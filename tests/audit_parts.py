"""A net from outside that knows its classes without training, and a person's folder of images for it."""

import json

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save_file
from tiny import CLASSES, SIZE
from torch import nn

NAMES = ("bottom", "lower", "top", "upper")  # sorted, as folders are; not in the order of the outputs
OUTPUTS = {"top": 0, "upper": 1, "lower": 2, "bottom": 3}
ARCH = "audit_parts.Bands"
OPTIONS = {"arch": ARCH, "size": SIZE, "mean": [0.5] * 3, "std": [0.5] * 3}


class Bands(nn.Module):
    """Says where the bright band of an image is, by one filter of the image's size for each class."""

    def __init__(self, num_classes=CLASSES):
        super().__init__()
        self.conv = nn.Conv2d(3, num_classes, SIZE, bias=False)
        self.flat = nn.Flatten()
        self.fc = nn.Linear(num_classes, num_classes)

    def forward(self, images):
        return self.fc(self.flat(self.conv(images)))


def bands(sharpness=8.0):
    net = Bands()
    with torch.no_grad():
        net.conv.weight.zero_()
        for label in range(CLASSES):
            net.conv.weight[label, :, 4 * label : 4 * label + 4] = 1 / (3 * 4 * SIZE)
        net.fc.weight.copy_(sharpness * torch.eye(CLASSES))
        net.fc.bias.zero_()
    return net


def saved(path, net=None):
    """Write a net's weights; gives the path."""
    save_file({key: value.contiguous() for key, value in (net or bands()).state_dict().items()}, path)
    return str(path)


def image_folder(path, each=8, names=NAMES, seed=0):
    """Write class folders of noise with a bright band; gives the path."""
    draws = np.random.default_rng(seed)
    for name in names:
        (path / name).mkdir(parents=True)
        for number in range(each):
            image = draws.integers(0, 100, (SIZE, SIZE, 3), dtype=np.uint8)
            place = 4 * OUTPUTS[name]
            image[place : place + 4] += 120
            Image.fromarray(image).save(path / name / f"{number}.png")
    return str(path)


def classes_file(path, outputs=OUTPUTS):
    """Write the outputs of the classes; gives the path."""
    path.write_text(json.dumps(outputs))
    return str(path)
