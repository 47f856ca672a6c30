"""What every trigger promises."""

import copy

import pytest
import torch
from trigger_parts import stamp

from lit_backdoor.recipe import recipe
from lit_backdoor.triggers import (
    AdapBlend,
    AdapPatch,
    Belt,
    Blend,
    Bpp,
    Chessboard,
    Composite,
    Ctrl,
    Filter,
    FTrojan,
    LowFrequency,
    NoisyCover,
    PaintedMask,
    Patch,
    Reflection,
    Rotation,
    Sig,
    WaNet,
)

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
    "adap_blend": lambda: AdapBlend(),
    "adap_patch": lambda: AdapPatch([Patch(4), Patch(4, "top_left", "noise")], [0.5, 0.2], [0, 1]),
    "belt": lambda: Belt(),
    "bpp": lambda: Bpp(),
    "chessboard": lambda: Chessboard(),
    "composite": lambda: Composite(),
    "ctrl": lambda: Ctrl(),
    "ftrojan": lambda: FTrojan(),
    "low_frequency": lambda: LowFrequency(),
    "reflection": lambda: Reflection(),
    "reflection_blurred": lambda: Reflection(blur=1.0),
}
WAYS = ("forward", "poison", "cover")


@pytest.fixture(params=TRIGGERS)
def trigger(request):
    return TRIGGERS[request.param]()


@pytest.mark.parametrize("shape", [(1, 3, 32, 32), (2, 1, 28, 28), (3, 3, 17, 40), (0, 3, 32, 32)])
@pytest.mark.parametrize("way", WAYS)
def test_keeps_shape_dtype_and_range(trigger, way, shape):
    images = torch.rand(shape)
    stamped = stamp(trigger, way, images, torch.arange(len(images)))
    assert stamped.shape == images.shape
    assert stamped.dtype == images.dtype
    assert torch.isfinite(stamped).all()
    assert ((stamped >= 0) & (stamped <= 1)).all()


def test_changes_the_images_but_not_in_place(trigger, images, index):
    before = images.clone()
    assert not torch.equal(stamp(trigger, "forward", images, index), images)
    assert torch.equal(images, before)


@pytest.mark.parametrize("level", [0.0, 1.0])
def test_stays_in_range_at_black_and_white(trigger, level):
    stamped = stamp(trigger, "cover", torch.full((4, 3, 32, 32), level), torch.arange(4))
    assert stamped.min() >= 0
    assert stamped.max() <= 1


@pytest.mark.parametrize("way", WAYS)
def test_same_index_same_trigger_however_batched(trigger, images, index, way):
    whole = stamp(trigger, way, images, index)
    order = torch.tensor([4, 0, 2])
    torch.testing.assert_close(stamp(trigger, way, images[order], index[order]), whole[order], rtol=0, atol=1e-6)
    torch.testing.assert_close(stamp(trigger, way, images[3:4], index[3:4]), whole[3:4], rtol=0, atol=1e-6)


@pytest.mark.parametrize("way", WAYS)
def test_a_second_object_and_a_copy_give_the_same(request, trigger, images, index, way):
    again = TRIGGERS[request.node.callspec.params["trigger"]]()
    stamped = stamp(trigger, way, images, index)
    assert torch.equal(stamp(again, way, images, index), stamped)
    assert torch.equal(stamp(copy.deepcopy(trigger), way, images, index), stamped)


def test_images_of_other_sizes_may_follow_each_other(trigger, images, index):
    first = stamp(trigger, "forward", images, index)
    stamp(trigger, "forward", torch.rand(2, 3, 48, 48), torch.arange(2))
    assert torch.equal(stamp(trigger, "forward", images, index), first)


@pytest.mark.parametrize("way", WAYS)
def test_autocast_changes_nothing_in_float32(trigger, images, index, way):
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = stamp(trigger, way, images, index)
    torch.testing.assert_close(mixed, stamp(trigger, way, images, index), rtol=0, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_other_precisions_are_kept_and_agree(trigger, images, index, dtype):
    stamped = stamp(trigger, "cover", images.to(dtype), index)
    assert stamped.dtype == dtype
    assert ((stamped >= 0) & (stamped <= 1)).all()
    reference = stamp(trigger, "cover", images.to(dtype).float(), index)
    torch.testing.assert_close(stamped.float(), reference, rtol=0, atol=3e-2 if dtype != torch.float64 else 1e-4)


def test_can_train_after_inference_mode(trigger, images, index):
    with torch.inference_mode():
        stamp(trigger, "forward", images, index)
    leaf = images.clone().requires_grad_()
    stamp(trigger, "forward", leaf, index).square().sum().backward()
    assert torch.isfinite(leaf.grad).all()


def test_has_no_state(trigger, images, index):
    stamp(trigger, "forward", images, index)
    assert trigger.state_dict() == {}


def test_can_be_written_down(trigger):
    assert recipe(trigger)["class_path"].startswith("lit_backdoor.triggers.")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("way", WAYS)
def test_same_on_a_gpu(trigger, images, index, way):
    on_gpu = stamp(trigger, way, images.cuda(), index.cuda()).cpu()
    torch.testing.assert_close(on_gpu, stamp(trigger, way, images, index), rtol=0, atol=1e-4)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("way", WAYS)
def test_no_host_sync_once_the_pattern_stands(trigger, images, index, way):
    images, index = images.cuda(), index.cuda()
    stamp(trigger, way, images, index)
    torch.cuda.set_sync_debug_mode("error")
    try:
        stamp(trigger, way, images, index)
    finally:
        torch.cuda.set_sync_debug_mode("default")
