"""PGBD under the stamps that it searches."""

import pytest
import tiny
import torch
from pgbd_parts import STATIC, fast, run
from torch.nn import functional as F

from lit_backdoor.defenses.pgbd import PGBD, StampPGBD
from lit_backdoor.defenses.pgbd.stamped import stamped_images
from lit_backdoor.functional.prototypes import sanitization_loss
from lit_backdoor.stages import StampSearch


def test_search_of_stamps_adds_the_loss_of_stamped_images():
    stage = StampPGBD(tiny.classifier(), 2, weight=3.0, geometry=STATIC, search=StampSearch(weight=0.5, steps=2))
    steps, seen = tiny.recorded(stage), []
    terms = stage.terms
    stage.terms = lambda images, labels: seen.append((images, labels)) or terms(images, labels)
    run(stage, 1, limit_train_batches=1)
    (clean, labels), (stamped, again) = seen
    assert labels is again
    change = stamped - clean
    assert change.abs().max() > 0.05
    with torch.no_grad():
        net = tiny.classifier().eval()
        layer = stage.space.layer
        losses = []
        for images in (clean, stamped):
            logits, taps = net.logits_and_taps(images, [layer])
            kept = sanitization_loss(taps[layer], labels, stage.prototypes, stage.vectors)
            losses.append(F.cross_entropy(logits, labels) + 3 * kept)
    torch.testing.assert_close(steps[0]["loss"], losses[0] + 0.5 * losses[1])


def test_searched_stamp_moves_activations_along_the_vectors():
    stage = run(PGBD(tiny.classifier(), 2, geometry=STATIC), 1)
    batch = tiny.data().images(next(iter(tiny.data().train_dataloader())))
    images, labels = batch["image"], batch["label"]
    torch.manual_seed(0)
    found = stamped_images(stage, images, labels, StampSearch(smallest=1.0, steps=10))
    noise = (images + 0.2 * torch.randn_like(images).sign()).clamp(0, 1)
    along = [float(stage.terms(each, labels)[1]) for each in (images, noise, found)]
    assert along[2] > max(along[:2]) + 0.02


def test_search_on_images_of_the_target_class_alone():
    stage = run(PGBD(tiny.classifier(), 2, geometry=STATIC), 1)
    images = torch.rand(4, 3, tiny.SIZE, tiny.SIZE)
    stamped = stamped_images(stage, images, torch.full((4,), 2), StampSearch(steps=2))
    assert stamped.isfinite().all()
    assert not torch.equal(stamped, images)  # the random start


def test_search_updates_no_statistics():
    search = StampSearch(steps=2)
    [with_search, without] = (
        run(StampPGBD(tiny.classifier(), 2, geometry=STATIC, batch_norm="train", optimizer=fast, search=given), 1)
        for given in (search, StampSearch(steps=1))
    )
    for name, value in with_search.classifier.state_dict().items():
        if name.endswith("num_batches_tracked"):
            assert torch.equal(value, without.classifier.state_dict()[name])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"weight": -1.0}, "search.weight"),
        ({"steps": 0}, "search.steps"),
        ({"budget": 0.0}, "search.budget"),
        ({"smallest": 1.5}, "search.smallest"),
        ({"whole": 1.5}, "search.whole"),
        ({"coarsest": 0.5}, "search.coarsest"),
        ({"coarsest": float("inf")}, "search.coarsest"),
    ],
)
def test_search_out_of_range_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        StampSearch(**options)
