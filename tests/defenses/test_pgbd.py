import pytest
import tiny
import torch
from pgbd_parts import STATIC, fast, lacking, run, targets
from torch import nn
from torch.nn import functional as F

from lit_backdoor.bundle import open_bundle
from lit_backdoor.data import TensorSource
from lit_backdoor.defenses.pgbd import PGBD, STPGBD, Geometry, StampSearch
from lit_backdoor.functional.prototypes import class_prototypes, sanitization_loss
from lit_backdoor.models import TimmClassifier, wrap_classifier
from lit_backdoor.triggers import GeneratorTrigger, MaskedPattern, Patch


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


def test_activation_is_that_of_the_last_convolution_before_the_shortcut():
    stage = run(PGBD(tiny.classifier(), 2, geometry=STATIC), 1)
    assert stage.space.layer == "layer4.1.conv2"
    expected = prototypes_of(tiny.classifier(), "layer4.1.conv2")
    torch.testing.assert_close(stage.prototypes, expected)
    torch.testing.assert_close(stage.vectors[0], expected[2] - expected)


def test_pooled_activations_are_averaged_over_positions():
    stage = run(PGBD(tiny.classifier(), 2, geometry=Geometry(update=0, pooled=True)), 1)
    maps = torch.rand(5, 7, 2, 2)
    stage.space.classifier.logits_and_taps = lambda images, names: (images, dict.fromkeys(names, maps))
    torch.testing.assert_close(stage.space(maps)[1], maps.flatten(2).mean(2))
    channels = tiny.classifier().net.get_submodule("layer4.1.conv2").out_channels
    assert stage.vectors.shape == (1, tiny.CLASSES, channels)


def test_net_without_convolutions_is_taken_at_its_split():
    torch.manual_seed(0)
    args = {"depth": 2, "img_size": tiny.SIZE, "patch_size": 4}
    vit = TimmClassifier("vit_tiny_patch16_224", tiny.CLASSES, tiny.SIZE, channels=32, net_args=args)
    stage = run(PGBD(vit, 1, optimizer=fast))
    assert stage.space.layer is None
    assert stage.vectors.shape == (1, tiny.CLASSES, 32)
    plain = nn.Sequential(nn.Flatten(), nn.Linear(3 * tiny.SIZE**2, 8), nn.ReLU(), nn.Linear(8, tiny.CLASSES))
    net = wrap_classifier(
        plain, split="1", num_classes=tiny.CLASSES, input_size=tiny.SIZE, mean=(0.5,) * 3, std=(0.25,) * 3
    )
    assert run(PGBD(net, 1, optimizer=fast)).vectors.shape == (1, tiny.CLASSES, 8)


def test_loss_is_cross_entropy_and_weighed_cosines():
    stage = PGBD(tiny.classifier(), 2, weight=3.0, reduction="sum", geometry=STATIC)
    logged = {}
    stage.log_train = lambda size, **values: logged.update(values)
    run(stage, 1, limit_train_batches=1)
    torch.testing.assert_close(logged["loss"].detach(), logged["classification"] + 3 * logged["sanitization"])
    module = tiny.data()
    batch = module.images(next(iter(module.train_dataloader())))
    net, layer = tiny.classifier().eval(), "layer4.1.conv2"
    tapped = net.taps(batch["image"], [layer])[layer].flatten(1)
    away = tapped - stage.prototypes[batch["label"]]
    cosines = F.cosine_similarity(away, stage.vectors[0, batch["label"]])[batch["label"] != 2]
    torch.testing.assert_close(logged["sanitization"], cosines.sum().detach())
    torch.testing.assert_close(logged["classification"], F.cross_entropy(net(batch["image"]), batch["label"]).detach())


def test_loss_turns_activations_away_from_the_target():
    def sanitization(weight):
        stage = PGBD(tiny.classifier(), 2, weight=weight, geometry=STATIC, optimizer=fast)
        return float(run(stage, 4, enable_checkpointing=False).trainer.callback_metrics["train/sanitization"])

    assert sanitization(3.0) < sanitization(0.0) - 0.2


@pytest.mark.parametrize("head", ["frozen", "tuned"])
def test_last_layer_is_tuned_or_not(head):
    stage = run(PGBD(tiny.classifier(), 2, optimizer=fast, head=head))
    moved = tiny.moved(tiny.tensors(tiny.classifier()), tiny.tensors(stage.classifier))
    assert {"net.fc.weight", "net.fc.bias"} & moved == (set() if head == "frozen" else {"net.fc.weight", "net.fc.bias"})
    assert len(moved) > 20


def test_weights_are_averaged_over_the_last_epochs_steps(tmp_path):
    steps = []

    class Keep(tiny.pl.Callback):
        def on_train_batch_end(self, trainer, module, *args):
            steps.append(module.classifier.net.conv1.weight.detach().clone())

    data = tiny.data(batch_size=8)
    stage = run(PGBD(tiny.classifier(), 2, optimizer=fast, average=2), 4, data, callbacks=[Keep()])
    assert len(steps) == 12
    expected = torch.stack(steps[6:]).mean(0)
    torch.testing.assert_close(stage.averaged.net.conv1.weight, expected)
    stage.export(tmp_path / "suspect")
    handed_on = open_bundle(tmp_path / "suspect", "suspect").build()
    images = torch.rand(2, 3, tiny.SIZE, tiny.SIZE)
    torch.testing.assert_close(handed_on(images), stage.eval().logits(images))
    last = run(PGBD(tiny.classifier(), 2, optimizer=fast, average=0), 4, tiny.data(batch_size=8))
    torch.testing.assert_close(last.outcome().module.net.conv1.weight, steps[-1])


def test_weights_are_averaged_over_steps_where_several_batches_make_one():
    steps = {}

    class Keep(tiny.pl.Callback):
        def on_train_batch_end(self, trainer, module, *args):
            steps[trainer.global_step] = module.classifier.net.conv1.weight.detach().clone()

    data = tiny.data(batch_size=4)
    stage = run(PGBD(tiny.classifier(), 2, optimizer=fast), 2, data, callbacks=[Keep()], accumulate_grad_batches=4)
    expected = (steps[3] + steps[4]) / 2  # two steps an epoch, of four batches and of two
    torch.testing.assert_close(stage.averaged.net.conv1.weight, expected)


def test_static_vectors_stay_and_rebuilt_ones_follow_the_net():
    seen = {}

    class Keep(tiny.pl.Callback):
        def on_train_epoch_end(self, trainer, module):
            seen.setdefault(id(module), []).append((module.prototypes.clone(), module.vectors.clone()))

    def kept(**geometry):
        stage = PGBD(tiny.classifier(), 2, geometry=Geometry(**geometry), optimizer=fast)
        run(stage, 3, callbacks=[Keep()])
        return seen.pop(id(stage))

    static = kept(update=0)
    assert all(torch.equal(static[0][1], vectors) for _, vectors in static)
    late = kept(update=2, alpha=[1.0])
    assert torch.equal(late[0][0], late[1][0])
    assert not torch.equal(late[1][0], late[2][0])
    half = kept(update=2, alpha=[0.5])
    torch.testing.assert_close(half[2][0], (late[0][0] + late[2][0]) / 2)
    vectors_only = kept(update=2, alpha=[0.5], smoothed="vectors")
    torch.testing.assert_close(vectors_only[2][0], late[2][0])
    torch.testing.assert_close(vectors_only[2][1], (late[0][1] + late[2][1]) / 2)


def test_alphas_take_turns_after_the_first_build():
    geometry = Geometry(alpha=[1.0, 0.75, 0.5], smoothed="both")
    assert [geometry.weights(n)[0] for n in range(5)] == [1, 1, 0.75, 0.5, 1]


def test_several_flagged_classes_are_all_treated(tmp_path):
    stage = run(PGBD(tiny.classifier(), targets(tmp_path / "t", [3, 1]), geometry=STATIC, optimizer=fast), 1)
    assert stage.leads.tolist() == [[3] * 4, [1] * 4]
    torch.testing.assert_close(stage.vectors, stage.prototypes[[3, 1]][:, None] - stage.prototypes)
    assert stage.numbers() == {"target_class": 3, "target_classes": [3, 1]}


@pytest.mark.parametrize("batch_norm", ["eval", "train"])
def test_nothing_flagged_leaves_the_suspect_as_it_is(tmp_path, batch_norm):
    found = targets(tmp_path / "t", [])
    for stage in (PGBD(tiny.classifier(), found, batch_norm=batch_norm, schedule="cosine"),
                  STPGBD(tiny.classifier(), found, batch_norm=batch_norm)):  # fmt: skip
        with pytest.warns(UserWarning, match="No class was flagged: the suspect goes on unchanged") as seen:
            run(stage)
        assert not any("lr_scheduler" in str(warning.message) for warning in seen)
        assert not tiny.moved(tiny.tensors(tiny.classifier()), tiny.tensors(stage.classifier))
        stage.export(tmp_path / "suspect")
        assert open_bundle(tmp_path / "suspect").numbers["target_class"] is None


def test_map_of_an_all_to_all_attack():
    stage = run(PGBD(tiny.classifier(), [1, 2, 3, 3], geometry=STATIC), 1)
    torch.testing.assert_close(stage.vectors[0], stage.prototypes[[1, 2, 3, 3]] - stage.prototypes)
    assert stage.vectors[0, 3].eq(0).all()


@pytest.mark.parametrize(
    ("target", "message"),
    [(4, "from 0 to 3, got 4"), ([1, 2, 3], "a map of 4 classes"), ([1, 2, 3, 4], "from 0 to 3, one for each class")],
)
def test_target_that_is_none_is_refused(target, message):
    with pytest.raises(ValueError, match=message):
        run(PGBD(tiny.classifier(), target))


def test_average_needs_a_last_epoch():
    with pytest.raises(ValueError, match="max_epochs to be set: weights are averaged over the last ones"):
        run(PGBD(tiny.classifier(), 0), -1, max_steps=2)


def test_negative_average_is_refused():
    with pytest.raises(ValueError, match="average to be 0 or more epochs, got -1"):
        PGBD(tiny.classifier(), 0, average=-1)


def test_unknown_head_is_refused():
    with pytest.raises(ValueError, match="head 'freeze'. Did you mean 'frozen'"):
        PGBD(tiny.classifier(), 0, head="freeze")


def test_unknown_layer_is_refused_with_the_nearest():
    with pytest.raises(ValueError, match=r"'layer4.1.conv3'. Did you mean 'layer4.1.conv[12]'"):
        run(PGBD(tiny.classifier(), 0, geometry=Geometry(layer="layer4.1.conv3")))


@pytest.mark.parametrize(
    ("options", "message"),
    [({"centroids": 0}, "at least 1, got 0"), ({"update": -1}, "0 or more epochs, got -1"), ({"alpha": []}, "one weight"),
     ({"alpha": [1.5]}, r"alpha in \(0, 1\], got 1.5"), ({"smoothed": "prototype"}, "Did you mean 'prototypes'")],
)  # fmt: skip
def test_geometry_out_of_range_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        Geometry(**options)


def test_root_set_without_the_target_is_refused_and_without_another_class_is_not():
    with pytest.raises(ValueError, match=r"root images of every target class, got none of \[2\]"):
        run(PGBD(tiny.classifier(), 2), datamodule=lacking(2))
    stage = run(PGBD(tiny.classifier(), 2), datamodule=lacking(1))
    assert all(weight.isfinite().all() for weight in stage.classifier.parameters())


def test_synthesized_vectors_lead_to_triggered_prototypes(tmp_path):
    trigger = GeneratorTrigger(tiny.unet())
    stage = run(STPGBD(tiny.classifier(), targets(tmp_path / "t", [3, 1], trigger), geometry=STATIC), 1)
    moved = prototypes_of(tiny.classifier(), stage.space.layer, trigger.eval()) - stage.prototypes
    moved[3] = 0
    torch.testing.assert_close(stage.vectors[0], moved, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(stage.vectors[1], stage.prototypes[1] - stage.prototypes)
    assert stage.numbers()["target_class"] == 3


@pytest.mark.parametrize("make", [lambda: Patch(size=3, place=(1, 1), pattern="white"), tiny.unet])
def test_trigger_of_an_unknown_target_moves_all_classes(make):
    stage = run(STPGBD(tiny.classifier(), make(), geometry=STATIC), 1)
    assert stage.vectors[0].ne(0).any(1).all()
    assert stage.numbers() == {}
    named = run(STPGBD(tiny.classifier(), make(), target=1, geometry=STATIC), 1)
    assert named.vectors[0].ne(0).any(1).tolist() == [True, False, True, True]


@pytest.mark.parametrize("smoothed", ["prototypes", "vectors", "both"])
def test_trigger_that_does_nothing_has_no_vectors_however_the_net_went_on(smoothed):
    nothing = MaskedPattern(3, tiny.SIZE, tiny.SIZE)
    geometry = Geometry(update=1, alpha=[0.5], smoothed=smoothed)
    stage = run(STPGBD(tiny.classifier(), nothing, geometry=geometry, optimizer=fast), 3)
    assert not stage.vectors.any()


def test_bundle_without_a_trigger_is_refused(tmp_path):
    with pytest.raises(ValueError, match="a report on target classes with a trigger"):
        run(STPGBD(tiny.classifier(), targets(tmp_path / "t", [3])))


def test_class_of_one_root_image_does_not_make_the_run_diverge():
    images, labels = tiny.source().train().images(torch.arange(40)), torch.arange(40) % 4
    few = torch.cat([torch.where(labels == label)[0][: 1 if label == 3 else 6] for label in range(4)])
    root = TensorSource((images[few], labels[few]), (images[few], labels[few]))
    with pytest.warns(UserWarning, match="class"):
        stage = run(PGBD(tiny.classifier(), 0, weight=10.0), 3, tiny.data(root_source=root, split=None))
    assert all(value.isfinite().all() for value in stage.classifier.state_dict().values())


def test_search_of_stamps_adds_the_loss_of_stamped_images():
    stage = PGBD(tiny.classifier(), 2, weight=3.0, geometry=STATIC, search=StampSearch(weight=0.5, steps=2))
    logged, seen = {}, []
    stage.log_train = lambda size, **values: logged.update(values)
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
    torch.testing.assert_close(logged["loss"].detach(), losses[0] + 0.5 * losses[1])


def test_searched_stamp_moves_activations_along_the_vectors():
    stage = run(PGBD(tiny.classifier(), 2, geometry=STATIC), 1)
    batch = tiny.data().images(next(iter(tiny.data().train_dataloader())))
    images, labels = batch["image"], batch["label"]
    torch.manual_seed(0)
    found = stage.stamped(images, labels, StampSearch(smallest=1.0, steps=10))
    noise = (images + 0.2 * torch.randn_like(images).sign()).clamp(0, 1)
    along = [float(stage.terms(each, labels)[1]) for each in (images, noise, found)]
    assert along[2] > max(along[:2]) + 0.02


def test_search_on_images_of_the_target_class_alone():
    stage = run(PGBD(tiny.classifier(), 2, geometry=STATIC), 1)
    images = torch.rand(4, 3, tiny.SIZE, tiny.SIZE)
    stamped = stage.stamped(images, torch.full((4,), 2), StampSearch(steps=2))
    assert stamped.isfinite().all()
    assert not torch.equal(stamped, images)  # the random start


def test_search_updates_no_statistics():
    search = StampSearch(steps=2)
    [with_search, without] = (
        run(PGBD(tiny.classifier(), 2, geometry=STATIC, batch_norm="train", optimizer=fast, search=given), 1)
        for given in (search, StampSearch(steps=1))
    )
    for name, value in with_search.classifier.state_dict().items():
        if name.endswith("num_batches_tracked"):
            assert torch.equal(value, without.classifier.state_dict()[name])


@pytest.mark.parametrize(
    ("options", "message"),
    [({"weight": -1.0}, "search.weight"), ({"steps": 0}, "search.steps"), ({"budget": 0.0}, "search.budget"),
     ({"smallest": 1.5}, "search.smallest")],
)  # fmt: skip
def test_search_out_of_range_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        StampSearch(**options)


def test_second_run_of_a_stage_begins_a_new_average():
    stage = PGBD(tiny.classifier(), 2, optimizer=fast)
    run(stage, 1)
    run(stage, 1)
    assert stage.mean.n_averaged == 1
    for mean, last in zip(stage.averaged.parameters(), stage.classifier.parameters(), strict=True):
        torch.testing.assert_close(mean, last)


def test_run_that_ends_before_its_last_epochs_is_said():
    with pytest.warns(UserWarning, match="ended before the last 1 of 5 epochs"):
        run(PGBD(tiny.classifier(), 2, optimizer=fast), 5, max_steps=2)


def test_another_layer_is_not_frozen_in_the_last_one_s_place():
    class Gated(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.fc = torch.nn.Conv2d(3, 8, 3), torch.nn.Linear(8, tiny.CLASSES)
            self.gate = torch.nn.Linear(8, tiny.CLASSES)  # registered last, but not the last one

        def forward(self, images):
            pooled = self.conv(images).mean((2, 3))
            return self.fc(pooled) * self.gate(pooled).sigmoid()

    half = (0.5, 0.5, 0.5)
    net = wrap_classifier(Gated(), split="conv", num_classes=tiny.CLASSES, input_size=tiny.SIZE, mean=half, std=half)
    with pytest.raises(ValueError, match="'gate' to be the last.*set model.init_args.head=tuned"):
        run(PGBD(net, 1))
    run(PGBD(net, 1, head="tuned"))


def test_embedding_of_patches_is_not_taken_for_the_last_convolution():
    body = torch.nn.Sequential(
        torch.nn.Conv2d(3, 8, 8, stride=8), torch.nn.Flatten(), torch.nn.Linear(32, 16), torch.nn.ReLU(),
        torch.nn.Linear(16, tiny.CLASSES),
    )  # fmt: skip
    half = (0.5, 0.5, 0.5)
    net = wrap_classifier(body, split="3", num_classes=tiny.CLASSES, input_size=tiny.SIZE, mean=half, std=half)
    assert run(PGBD(net, 1)).space.shape == (16,)


def test_stage_that_has_not_run_says_so():
    with pytest.raises(AttributeError, match="nets are made when a Trainer runs"):
        PGBD(tiny.classifier(), 1).outcome()
