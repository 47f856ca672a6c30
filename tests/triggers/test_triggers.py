"""What every trigger promises."""

import copy

import pytest
import torch

from lit_backdoor.recipe import recipe
from lit_backdoor.triggers import Blend, Filter, NoisyCover, PaintedMask, Patch, Rotation, Sig, WaNet

TRIGGERS = {
    "patch": lambda: Patch(5, (6, 6)),
    "patch_color": lambda: Patch(4, "top_left", (1.0, 1.0, 0.0)),
    "patch_checkerboard": lambda: Patch((3, 5), "center", "checkerboard"),
    "patch_noise": lambda: Patch(2, (-4, -3), "noise", seed=1),
    "blend": lambda: Blend(),
    "blend_gaussian": lambda: Blend(0.1, "gaussian"),
    "sig": lambda: Sig(),
    "wanet": lambda: WaNet(),
    "rotation": lambda: Rotation(),
    "noisy_cover": lambda: NoisyCover(WaNet()),
    "nashville": lambda: Filter(),
    "gotham": lambda: Filter("gotham", 0.5),
    "kelvin": lambda: Filter("kelvin"),
    "lomo": lambda: Filter("lomo"),
    "toaster": lambda: Filter("toaster"),
    "painted_mask": lambda: PaintedMask(color=(0.1, 0.5, 0.9), opacity=0.7),
}
WAYS = ("forward", "poison", "cover")


@pytest.fixture(params=TRIGGERS)
def trigger(request):
    return TRIGGERS[request.param]()


@pytest.mark.parametrize("shape", [(1, 3, 32, 32), (2, 1, 28, 28), (3, 3, 17, 40), (0, 3, 32, 32)])
@pytest.mark.parametrize("way", WAYS)
def test_keeps_shape_dtype_and_range(trigger, way, shape):
    images = torch.rand(shape)
    stamped = getattr(trigger, way)(images, torch.arange(len(images)))
    assert stamped.shape == images.shape
    assert stamped.dtype == images.dtype
    assert torch.isfinite(stamped).all()
    assert ((stamped >= 0) & (stamped <= 1)).all()


def test_changes_the_images_but_not_in_place(trigger, images, index):
    before = images.clone()
    assert not torch.equal(trigger(images, index), images)
    assert torch.equal(images, before)


@pytest.mark.parametrize("level", [0.0, 1.0])
def test_stays_in_range_at_black_and_white(trigger, level):
    stamped = trigger.cover(torch.full((4, 3, 32, 32), level), torch.arange(4))
    assert stamped.min() >= 0
    assert stamped.max() <= 1


@pytest.mark.parametrize("way", WAYS)
def test_same_index_same_trigger_however_batched(trigger, images, index, way):
    stamp = getattr(trigger, way)
    whole = stamp(images, index)
    order = torch.tensor([4, 0, 2])
    torch.testing.assert_close(stamp(images[order], index[order]), whole[order], rtol=0, atol=1e-6)
    torch.testing.assert_close(stamp(images[3:4], index[3:4]), whole[3:4], rtol=0, atol=1e-6)


@pytest.mark.parametrize("way", WAYS)
def test_a_second_object_and_a_copy_give_the_same(request, trigger, images, index, way):
    again = TRIGGERS[request.node.callspec.params["trigger"]]()
    stamped = getattr(trigger, way)(images, index)
    assert torch.equal(getattr(again, way)(images, index), stamped)
    assert torch.equal(getattr(copy.deepcopy(trigger), way)(images, index), stamped)


def test_images_of_other_sizes_may_follow_each_other(trigger, images, index):
    first = trigger(images, index)
    trigger(torch.rand(2, 3, 48, 48), torch.arange(2))
    assert torch.equal(trigger(images, index), first)


@pytest.mark.parametrize("way", WAYS)
def test_autocast_changes_nothing_in_float32(trigger, images, index, way):
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = getattr(trigger, way)(images, index)
    torch.testing.assert_close(mixed, getattr(trigger, way)(images, index), rtol=0, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_other_precisions_are_kept_and_agree(trigger, images, index, dtype):
    stamped = trigger.cover(images.to(dtype), index)
    assert stamped.dtype == dtype
    assert ((stamped >= 0) & (stamped <= 1)).all()
    reference = trigger.cover(images.to(dtype).float(), index)
    torch.testing.assert_close(stamped.float(), reference, rtol=0, atol=3e-2 if dtype != torch.float64 else 1e-4)


def test_can_train_after_inference_mode(trigger, images, index):
    with torch.inference_mode():
        trigger(images, index)
    leaf = images.clone().requires_grad_()
    trigger(leaf, index).square().sum().backward()
    assert torch.isfinite(leaf.grad).all()


def test_has_no_state(trigger, images, index):
    trigger(images, index)
    assert trigger.state_dict() == {}


def test_can_be_written_down(trigger):
    assert recipe(trigger)["class_path"].startswith("lit_backdoor.triggers.")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("way", WAYS)
def test_same_on_a_gpu(trigger, images, index, way):
    stamp = getattr(trigger, way)
    on_gpu = stamp(images.cuda(), index.cuda()).cpu()
    torch.testing.assert_close(on_gpu, stamp(images, index), rtol=0, atol=1e-4)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("way", WAYS)
def test_no_host_sync_once_the_pattern_stands(trigger, images, index, way):
    stamp, images, index = getattr(trigger, way), images.cuda(), index.cuda()
    stamp(images, index)
    torch.cuda.set_sync_debug_mode("error")
    try:
        stamp(images, index)
    finally:
        torch.cuda.set_sync_debug_mode("default")
