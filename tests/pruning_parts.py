"""A toy whose backdoor is one channel, and what tests of defenses on it share."""

import tiny
import torch
from torch import nn

from lit_backdoor.data import BackdoorDataModule, Split, TensorSource
from lit_backdoor.models import wrap_classifier


def source(rows=64, seed=0):
    """Gray noise; the brightness says the class."""
    generator = torch.Generator().manual_seed(seed)

    def part(count):
        labels = torch.arange(count) % 2
        noise = torch.randint(-40, 41, (count, 3, 8, 8), generator=generator)
        return (128 + noise + 40 * (2 * labels - 1).view(-1, 1, 1, 1)).to(torch.uint8), labels

    return TensorSource(part(rows), part(16))


def data(**options):
    given = {"split": Split(root_pool=40), "augment": None, "batch_size": 20, "seed": 3}
    return BackdoorDataModule(source(), **{**given, **options})


def backdoored():
    """Channel 0 is brightness, which decides; channel 1 is red less blue, silent on gray and far stronger if it is not."""
    conv, norm, last = nn.Conv2d(3, 2, 1), nn.BatchNorm2d(2), nn.Linear(2, 2)
    with torch.no_grad():
        conv.weight.copy_(torch.tensor([[1 / 3, 1 / 3, 1 / 3], [4.0, 0.0, -4.0]])[:, :, None, None])
        conv.bias.zero_()
        norm.weight.copy_(torch.tensor([1.0, 1.0]))
        norm.bias.copy_(torch.tensor([0.0, -3.0]))
        norm.running_mean.copy_(torch.tensor([0.5, 0.0]))
        norm.running_var.copy_(torch.tensor([0.03, 0.27]))
        last.weight.copy_(torch.tensor([[-4.0, 0.0], [4.0, 40.0]]))
        last.bias.copy_(torch.tensor([2.0, -2.0]))
    net = nn.Sequential(conv, norm, nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), last)
    return wrap_classifier(net, split="2", num_classes=2, input_size=8, mean=(0.0,) * 3, std=(1.0,) * 3)


def nearly_silent():
    """The same, with a channel 1 that noise just passes, so that a search has gradients."""
    suspect = backdoored()
    with torch.no_grad():
        suspect.net[1].bias[1] = -1.9
    return suspect


def without_backdoor():
    """The same, with a last layer that does not see channel 1."""
    suspect = nearly_silent()
    with torch.no_grad():
        suspect.net[-1].weight[:, 1] = 0
    return suspect


def redden(images, amount=0.22):
    """The trigger of channel 1."""
    shift = torch.tensor([amount, 0.0, -amount]).view(3, 1, 1)
    return (images + shift).clamp(0, 1)


def faint(images):
    """A trigger that just passes the silent channel."""
    return redden(images, 0.16)


def brighten(images):
    """A trigger of channel 0, which is what clean images of class 1 have."""
    return (images + 0.4).clamp(0, 1)


@torch.no_grad()
def rates(classifier, trigger=redden):
    """ACC, and ASR toward class 1."""
    images, labels = source().test().images(torch.arange(16)).float() / 255, torch.arange(16) % 2
    guess = classifier.eval()(images).argmax(1)
    triggered = classifier(trigger(images[labels == 0])).argmax(1)
    return float((guess == labels).float().mean()), float((triggered == 1).float().mean())


def without_attack(make, fit=True):
    """A stage run with an attack in the data, and with the triggered loader, flags and target taken out."""
    ran = []
    for attack in (tiny.attack(), None):
        stage, datamodule = make(), tiny.data(attack)
        if attack is None:
            datamodule.setup()
            assert "triggered" not in datamodule._views
        if fit:
            tiny.fit(stage, datamodule, max_epochs=2)
        else:
            tiny.trainer().predict(stage, datamodule=datamodule, return_predictions=False)
        ran.append(tiny.tensors(stage.result()))
    return ran


def resumed(make, folder, epochs=3, **options):
    """The tensors of a run, and of one that was resumed after its first epoch."""
    saver = tiny.pl.callbacks.ModelCheckpoint(folder, "{epoch}", save_top_k=-1)
    straight = tiny.fit(make(), tiny.data(**options), max_epochs=epochs, callbacks=[saver], enable_checkpointing=True)
    torch.manual_seed(12345)
    again = make()
    trainer = tiny.trainer(max_epochs=epochs, limit_val_batches=0)
    trainer.fit(again, tiny.data(**options), ckpt_path=folder / "epoch=0.ckpt", weights_only=True)
    return tiny.tensors(straight), tiny.tensors(again)


def equal(one, two):
    return one.keys() == two.keys() and all(torch.equal(one[key], two[key]) for key in one)
