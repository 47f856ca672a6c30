"""What the tests of TAC share."""

import tiny
import torch

from lit_backdoor.bundle import save_bundle
from lit_backdoor.functional.minimal_perturbation import minimal_perturbations, required_gains
from lit_backdoor.models.latents import latents_and_logits


def detected(stage, folder, datamodule=None, **options):
    datamodule = datamodule or tiny.data(tiny.attack())
    trainer = tiny.trainer(**options)
    trainer.predict(stage, datamodule=datamodule, return_predictions=False)
    stage.export(folder)
    return str(folder)


def solved(classifier, datamodule, **options):
    """The same by hand."""
    datamodule.setup()
    with torch.no_grad():
        batches = [datamodule.images(batch) for batch in datamodule.loader("root", shuffle=False)]
        latents = torch.cat([latents_and_logits(classifier.eval(), b["image"])[0][b["valid"]] for b in batches])
    last = classifier.final_linear
    return minimal_perturbations(last.weight.data, required_gains(last.weight.data, last.bias.data, latents, **options))


def report(folder, flagged, perturbations=True):
    """A bundle of target classes, as a detector leaves it."""
    tensors = {"flagged": torch.tensor(flagged, dtype=torch.long), "statistic": torch.ones(4), "index": torch.ones(4)}
    if perturbations:
        tensors["perturbations"] = torch.arange(4.0)[:, None] + torch.arange(32.0)
    numbers = {"target_class": flagged[0] if flagged else None, "top_class": 0}
    return str(save_bundle(folder, kind="targets", tensors=tensors, numbers=numbers).path)


def twins(same=(1, 3)):
    """A classifier that cannot tell two classes apart."""
    classifier = tiny.classifier()
    with torch.no_grad():
        for part in (classifier.final_linear.weight, classifier.final_linear.bias):
            part[same[1]] = part[same[0]]
    return classifier
