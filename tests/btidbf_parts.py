"""Tiny data, nets and trainers for the tests of BTI-DBF."""

import lightning.pytorch as pl
import torch
from torch import nn

from lit_backdoor.data import BackdoorDataModule, TensorSource
from lit_backdoor.data.split import Split
from lit_backdoor.defenses.btidbf import (
    BTIDBFPartialUnlearning,
    BTIDBFPurification,
    Decoupling,
    InversionSettings,
)
from lit_backdoor.models import ForeignClassifier, TimmClassifier, UNet, wrap_classifier
from lit_backdoor.triggers import Attack, Patch

MEAN, STD = (0.5, 0.5, 0.5), (0.25, 0.25, 0.25)
ONE = Decoupling(epochs=1)
SHORT = InversionSettings(epochs=1, first_epochs=2)


def unet(seed=7):
    torch.manual_seed(seed)
    return UNet(base=4, downs=2, attention="none", start="small")


def source(size=16, train=60, test=20):
    generator = torch.Generator().manual_seed(0)
    parts = [
        (
            torch.randint(0, 256, (rows, 3, size, size), generator=generator, dtype=torch.uint8),
            torch.arange(rows) % 4,
        )
        for rows in (train, test)
    ]
    return TensorSource(*parts, class_names=("a", "b", "c", "d"))


def data(attack=True, size=16, root=24, batch_size=8, **options):
    found = Attack(Patch(size=3, place=(1, 1)), target=1, rate=0.2) if attack is True else attack
    split = Split(root_pool=root)
    return BackdoorDataModule(
        source(size), split, found, batch_size=batch_size, eval_batch_size=16, **{"seed": 3, **options}
    )


def suspect(seed=0):
    torch.manual_seed(seed)
    return TimmClassifier("resnet18", num_classes=4, input_size=16, channels=4)


def trainer(epochs, folder=None, **options):
    given = {"accelerator": "cpu", "logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    given |= {"enable_checkpointing": False, "num_sanity_val_steps": 0, "limit_val_batches": 1}
    return pl.Trainer(**{**given, "max_epochs": epochs, "default_root_dir": folder, **options})


def plain_net():
    torch.manual_seed(1)
    layers = [nn.Conv2d(3, 4, 3, 2, 1), nn.BatchNorm2d(4), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten()]
    return nn.Sequential(*layers, nn.Linear(16, 4))


class Views(nn.Module):
    """Reads the batch's size off its input."""

    def __init__(self):
        super().__init__()
        self.conv, self.pool, self.fc = nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(2), nn.Linear(16, 4)

    def forward(self, x):
        batch = x.size(0)
        return self.fc(self.pool(self.conv(x)).reshape(batch, -1))


def architecture(name):
    torch.manual_seed(2)
    small = {"num_classes": 4, "input_size": 32}
    if name == "sequential":
        return wrap_classifier(plain_net(), split="2", num_classes=4, input_size=32, mean=MEAN, std=STD)
    if name == "squeezenet":
        path = "torchvision.models.squeezenet1_1"
        return ForeignClassifier(path, {"num_classes": 4}, "features", 4, 32, MEAN, STD)
    args = {
        "resnet18": {"channels": 4},
        "vgg16_bn": {"channels": 4},
        "densenet121": {"channels": 2},
        "vit_tiny_patch16_224": {"channels": 32, "net_args": {"depth": 2}},
    }
    return TimmClassifier(name, **small, **args[name])


def unlearning(kind=BTIDBFPartialUnlearning, **options):
    given = {"decoupling": ONE, "inversion": SHORT, "generator": unet(), "rounds": 2, "unlearn_epochs": 1}
    return kind(suspect(), **{**given, **options})


def purification(kind=BTIDBFPurification, **options):
    given = {"decoupling": ONE, "inversion": SHORT, "generator": unet(), "rounds": 2, "purify_epochs": 1}
    return kind(suspect(), purifier=unet(), **{**given, **options})


def run(stage, datamodule=None, **options):
    trainer(stage.planned_epochs, **options).fit(stage, datamodule=datamodule or data())
    return stage


def feature_distance(trigger):
    net, module = suspect().eval(), data()
    total = []
    with torch.no_grad():
        for batch in module.triggered_batches(torch.device("cpu")):
            difference = net.features(trigger(batch["original"])) - net.features(batch["image"])
            total.append(difference.square().flatten(1).mean(1)[batch["eligible"] & batch["valid"]])
    return float(torch.cat(total).mean())
