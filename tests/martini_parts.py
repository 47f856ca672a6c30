"""The smallest parts that MARTINI runs on."""

import tiny
import torch
from tiny import CLASSES, SIZE, attack, classifier, data

from lit_backdoor.defenses.martini import MartiniHardening, ReconstructionSettings
from lit_backdoor.models import AutoEncoder, ConvEncoder

QUICK = {"images": 8, "regions": 2, "kernel": 1}


def autoencoder(seed=0, size=SIZE):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return AutoEncoder(ConvEncoder(4), size=size, width=4)


def hardening(cls=MartiniHardening, rounds=2, **options):
    options.setdefault("reconstruction", ReconstructionSettings(**QUICK))
    return cls(classifier(), autoencoder(), rounds=rounds, **options)


def run(stage, datamodule=None, **options):
    """Train all rounds of a stage; gives the stage."""
    return tiny.fit(stage, datamodule or data(attack()), max_epochs=stage.planned_epochs, **options)


__all__ = ["CLASSES", "QUICK", "SIZE", "attack", "autoencoder", "classifier", "data", "hardening", "run"]
