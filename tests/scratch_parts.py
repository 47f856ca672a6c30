"""What tests of defenses that train anew on the questioned set share."""

import pruning_parts as parts
import tiny
import torch
from repair_parts import ROWS
from torch import nn

from lit_backdoor.bundle import save_bundle
from lit_backdoor.data import BackdoorDataModule, Split, TensorSource
from lit_backdoor.models import wrap_classifier
from lit_backdoor.triggers import Attack, Patch, Role

POISONED = list(range(0, 16, 2))  # rows of class 0 in `questioned`


class Bands(nn.Module):
    """Classify `tiny.source` by the brightness of its bands, which no small patch changes much."""

    def __init__(self):
        super().__init__()
        self.votes = nn.Identity()

    def forward(self, images):
        return self.votes(50 * images.mean((1, 3)).unflatten(1, (tiny.CLASSES, -1)).mean(2))


def bands():
    kept = {"num_classes": tiny.CLASSES, "input_size": tiny.SIZE, "mean": (0.0,) * 3, "std": (1.0,) * 3}
    return wrap_classifier(Bands(), split="votes", **kept)


def selection(folder, rows):
    return str(save_bundle(folder, kind="selection", tensors={"indices": torch.as_tensor(rows)}).path)


def rows_by_role(role=None, plan=None):
    """The rows of the questioned set that are poisoned, or are not."""
    data = tiny.data(plan or tiny.attack(), source=tiny.source(ROWS))
    view = data.get_view("questioned")
    return view.index[(view.role == Role.POISON) == (role == Role.POISON)]


def trained(stage, plan=None, epochs=8, **options):
    """Train anew on a set with the backdoor of class 0."""
    return tiny.fit(stage, tiny.data(plan or tiny.attack(), source=tiny.source(ROWS), **options), max_epochs=epochs)


def low_attack():
    """A patch in the lower right, far from stamps in the upper left."""
    return Attack(Patch(size=3, place=(12, 12), pattern="white"), target=0, rate=0.25)


def low_rates(net):
    """ACC and ASR of a classifier under that patch, by hand."""
    rows = tiny.source(ROWS, 120).test()
    images, labels = rows.pixels.float() / 255, rows.labels
    stamped = images[labels != 0]
    stamped[:, :, 12:15, 12:15] = 1
    with torch.no_grad():
        clean, triggered = (net.eval()(x).argmax(1) for x in (images, stamped))
    return float((clean == labels).float().mean()), float((triggered == 0).float().mean())


def questioned(trigger):
    """Gray noise by brightness, whose first dark rows carry a trigger and are labeled bright."""
    images, labels = parts.source().train().images(torch.arange(64)).float() / 255, torch.arange(64) % 2
    images[POISONED] = trigger(images[POISONED])
    labels[POISONED] = 1
    source = TensorSource(((images * 255).to(torch.uint8), labels), ((images * 255).to(torch.uint8), labels))
    return BackdoorDataModule(source, Split(root_pool=0), augment=None, batch_size=16, seed=3)


def differs_without_flags(make, **options):
    """Whether weights depend on roles, clean labels or the triggered view of the same poisoned data."""
    ran = []
    for known in (True, False):
        datamodule = tiny.data(tiny.attack(), **options)
        datamodule.setup()
        if not known:
            prepared = datamodule.images

            def images(batch, training=False, prepared=prepared):
                return {k: v for k, v in prepared(batch, training).items() if k not in ("role", "clean_label")}

            datamodule.images = images
            del datamodule._views["triggered"]
        ran.append(tiny.tensors(tiny.fit(make(), datamodule, max_epochs=2)))
    return not parts.equal(*ran)


def still(parameters):
    """An optimizer that changes nothing."""
    return torch.optim.SGD(parameters, lr=0.0)
