"""What holds for every trigger of the package; a new one is found by being there."""

import martini_parts
import pytest
import tiny
import torch
from trigger_parts import stamp, style_net
from walk_parts import classes_of

from lit_backdoor.bundle import open_bundle, save_bundle
from lit_backdoor.models import SecretEncoder
from lit_backdoor.recipe import arguments_of, rebuild, recipe
from lit_backdoor.triggers import Blend, Patch, Trigger, WaNet

TRIGGERS = classes_of(Trigger, "triggers")
PARTS = {
    "channels": 3,
    "height": tiny.SIZE,
    "width": tiny.SIZE,
    "column": "glasses",
    "generator": tiny.unet,
    "masker": tiny.unet,
    "encoder": lambda: SecretEncoder(8, 4),
    "autoencoder": martini_parts.autoencoder,
    "net": style_net,
    "trigger": WaNet,
    "triggers": lambda: [Patch(), Blend()],
    "patches": lambda: [Patch(), Patch(place="top_left")],
    "alphas": lambda: [0.5, 0.3],
    "together": lambda: [0, 1],
}
STAMPED = [name for name, cls in TRIGGERS.items() if cls.stamps]
every_trigger = pytest.mark.parametrize("name", STAMPED)
IMAGES = torch.rand(5, 3, tiny.SIZE, tiny.SIZE, generator=torch.Generator().manual_seed(0))
INDEX = torch.tensor([7, 0, 31, 2, 12])


def made(name):
    """Make a trigger of its arguments, which say by their names what they are; a pattern of zeros is filled."""
    given = {key: PARTS[key] for key in arguments_of(TRIGGERS[name]) if key in PARTS}
    trigger = TRIGGERS[name](**{key: part() if callable(part) else part for key, part in given.items()}).eval()
    draw = torch.Generator().manual_seed(1)
    for value in trigger.state_dict().values():
        if value.is_floating_point() and not value.any():
            value.uniform_(generator=draw)
    return trigger


@torch.no_grad()
def stamped(trigger, images=IMAGES, index=INDEX):
    return torch.stack([stamp(trigger, way, images, index) for way in ("forward", "poison", "cover")])


def test_the_walk_finds_triggers():
    assert {"Patch", "GeneratorTrigger", "RegionalTrigger", "OneOf", "SemanticTrigger"} <= TRIGGERS.keys()


@every_trigger
def test_stamped_images_are_others_in_bounds(name):
    before, found = IMAGES.clone(), stamped(made(name))
    assert found.shape[1:] == IMAGES.shape
    assert found.dtype == IMAGES.dtype
    assert ((found >= 0) & (found <= 1)).all()
    assert not torch.equal(found[0], IMAGES)
    assert torch.equal(IMAGES, before)


@every_trigger
def test_the_index_decides_however_rows_are_batched(name):
    trigger, order = made(name), torch.tensor([4, 0, 2])
    whole = stamped(trigger)
    torch.testing.assert_close(stamped(trigger, IMAGES[order], INDEX[order]), whole[:, order], rtol=0, atol=1e-5)
    torch.testing.assert_close(stamped(trigger, IMAGES[3:4], INDEX[3:4]), whole[:, 3:4], rtol=0, atol=1e-5)


@every_trigger
def test_what_a_bundle_holds_stamps_bit_for_bit(name, tmp_path):
    trigger = made(name)
    save_bundle(tmp_path / "a", kind="trigger", module=trigger)
    assert torch.equal(stamped(open_bundle(tmp_path / "a").build()), stamped(trigger))


@pytest.mark.parametrize("name", [name for name in TRIGGERS if name not in STAMPED])
def test_what_is_recorded_names_the_same_rows(name):
    trigger = made(name)
    columns = {PARTS["column"]: torch.tensor([0, 1, 1])}
    assert torch.equal(rebuild(recipe(trigger)).carriers(columns), trigger.carriers(columns))
