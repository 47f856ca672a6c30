"""PGBD: its loss, its vectors and when they are rebuilt, the targets that it is given."""

import pytest
import tiny
import torch
from pgbd_parts import STATIC, fast, lacking, run, targets
from torch.nn import functional as F

from lit_backdoor.bundle import open_bundle
from lit_backdoor.data import TensorSource
from lit_backdoor.defenses.pgbd import PGBD, STPGBD, Geometry
from lit_backdoor.models import wrap_classifier


def test_loss_is_cross_entropy_and_weighed_cosines():
    stage = PGBD(tiny.classifier(), 2, weight=3.0, reduction="sum", geometry=STATIC)
    steps = tiny.recorded(stage)
    run(stage, 1, limit_train_batches=1)
    [logged] = steps
    torch.testing.assert_close(logged["loss"], logged["classification"] + 3 * logged["sanitization"])
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


@pytest.mark.slow
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


def test_unknown_head_is_refused():
    with pytest.raises(ValueError, match="head 'freeze'. Did you mean 'frozen'"):
        PGBD(tiny.classifier(), 0, head="freeze")


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


def test_class_of_one_root_image_does_not_make_the_run_diverge():
    images, labels = tiny.source().train().images(torch.arange(40)), torch.arange(40) % 4
    few = torch.cat([torch.where(labels == label)[0][: 1 if label == 3 else 6] for label in range(4)])
    root = TensorSource((images[few], labels[few]), (images[few], labels[few]))
    with pytest.warns(UserWarning, match="class"):
        stage = run(PGBD(tiny.classifier(), 0, weight=10.0), 3, tiny.data(root_source=root, split=None))
    assert all(value.isfinite().all() for value in stage.classifier.state_dict().values())


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


def test_stage_that_has_not_run_says_so():
    with pytest.raises(AttributeError, match="nets are made when a Trainer runs"):
        PGBD(tiny.classifier(), 1).outcome()
