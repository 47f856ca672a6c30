"""What the tests of PGBD and its variants share."""

import tiny
import torch

from lit_backdoor.bundle import save_bundle
from lit_backdoor.defenses.pgbd import Geometry
from lit_backdoor.functional.prototypes import class_prototypes

STATIC = Geometry(update=0)


def fast(parameters):
    return torch.optim.SGD(parameters, lr=0.01, momentum=0.9)


def run(stage, epochs=2, datamodule=None, **options):
    return tiny.fit(stage, datamodule or tiny.data(), max_epochs=epochs, **options)


def targets(folder, flagged, trigger=None, statistic=(1.0, 9.0, 8.0, 2.0)):
    """A bundle as a detector of target classes leaves it."""
    tensors = {"flagged": torch.tensor(flagged).long(), "statistic": torch.tensor(statistic)}
    numbers = {"target_class": flagged[0] if flagged else None}
    save_bundle(folder, kind="targets", module=trigger, tensors=tensors, numbers=numbers)
    return str(folder)


def lacking(label):
    """Data whose root set has no image of a class."""
    module = tiny.data()
    view = module.get_view("root")
    view.label[view.label == label] = (label + 1) % tiny.CLASSES
    return module


def prototypes_of(classifier, layer, stamp=None, seed=3):
    """Prototypes of the tiny root set, by hand."""
    module = tiny.data()
    images, labels = [], []
    for batch in module.loader("root", shuffle=False):
        batch = module.images(batch)
        images.append(batch["image"] if stamp is None else stamp(batch["image"]))
        labels.append(batch["label"])
    with torch.no_grad():
        tapped = classifier.eval().taps(torch.cat(images), [layer])[layer]
    return class_prototypes(tapped, torch.cat(labels), tiny.CLASSES, seed=seed)
