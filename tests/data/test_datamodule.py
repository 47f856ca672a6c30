import pickle
import warnings

import pytest
import tiny
import torch

from lit_backdoor.data import BackdoorDataModule, ByRole, CropFlip, Split, TensorSource
from lit_backdoor.data.stamping import on_device
from lit_backdoor.triggers.base import AllToAll, Attack, Role


def whole(data, view, training=False, **options):
    batches = [data.images(batch, training) for batch in data.loader(view, **options)]
    return {
        key: torch.cat([batch[key] for batch in batches]) if isinstance(batches[0][key], torch.Tensor) else None
        for key in batches[0]
    }


def pixel(index):
    return (index % 200 + 10) / 255


def test_questioned_view_is_stamped_where_planned(data, attack, source):
    got = whole(data, "questioned")
    truth = source.train().labels[got["index"]]
    assert got["clean_label"].equal(truth)
    assert got["role"].equal(attack.roles(truth, seed=0))
    poison, cover = got["role"] == Role.POISON, got["role"] == Role.COVER
    assert (int(poison.sum()), int(cover.sum())) == (18, 9)
    assert got["label"].equal(torch.where(poison, 1, truth))
    corner = got["image"][:, 0, 0]
    assert (corner[:, 1] == 1).equal(poison)  # planted by `poison`, not by `forward`
    assert (corner[:, 2] == 1).equal(cover)
    torch.testing.assert_close(got["image"][:, 2, 7, 7], pixel(got["index"]))


def test_only_planted_rows_reach_the_trigger(data, attack):
    whole(data, "questioned")
    assert sum(attack.trigger.rows_seen) == 18 + 9


def test_train_view_holds_the_questioned_rows_shuffled(data):
    questioned = whole(data, "questioned")
    train = whole(data, "train", batch_size=180)
    order = train["index"].argsort()
    assert not train["index"].equal(questioned["index"])
    for key in ("index", "label", "clean_label", "role", "image"):
        assert train[key][order].equal(questioned[key])


def test_root_view_is_clean_and_disjoint(data, source):
    root, questioned = whole(data, "root"), whole(data, "questioned")
    assert len(root["index"]) == 20
    assert not set(root["index"].tolist()) & set(questioned["index"].tolist())
    assert root["label"].equal(source.train().labels[root["index"]])
    assert (root["image"].flatten(1).amax(1) == root["image"].flatten(1).amin(1)).all()
    assert not root["role"].any()


def test_triggered_view_has_eligible_and_original(data, source):
    got, labels = whole(data, "triggered"), source.test().labels
    assert got["clean_label"].equal(labels)
    assert (got["label"] == 1).all()
    assert got["eligible"].equal(labels != 1)
    assert (got["image"][:, :, 0, 0] == 1).all()  # stamped by `forward`
    assert got["original"].equal(whole(data, "clean")["image"])


def test_all_to_all_labels(source, Corner):
    data = BackdoorDataModule(source, attack=Attack(Corner(), AllToAll(), rate=0.1))
    got = whole(data, "triggered")
    assert got["label"].equal((got["clean_label"] + 1) % 4)
    assert got["eligible"].all()


def test_padding_never_counts(data):
    ranks = [whole(data, "triggered", world_size=2, rank=rank, batch_size=7) for rank in range(2)]
    index, valid, eligible = (torch.cat([got[key] for got in ranks]) for key in ("index", "valid", "eligible"))
    assert index[valid].sort().values.equal(torch.arange(50))
    assert int(eligible.sum()) == data.counts["triggered"] == 37


def test_same_epoch_same_batches(source, attack):
    def epoch(number, workers=0):
        data = BackdoorDataModule(source, attack=attack, batch_size=32, num_workers=workers)
        loader = data.loader("train")
        loader.sampler.set_epoch(number)
        return torch.cat([data.images(batch, training=True)["image"] for batch in loader])

    assert epoch(2).equal(epoch(2))
    assert not epoch(2).equal(epoch(3))
    assert epoch(2).equal(epoch(2, workers=1))


def test_loader_resumes_where_an_uninterrupted_one_would_be(data):
    running = data.loader("train")
    for epoch in range(3):
        running.sampler.set_epoch(epoch)
        last = [(batch["index"], batch["seed"]) for batch in running]
    resumed = data.loader("train")
    resumed.sampler.set_epoch(2)
    for (index, seed), batch in zip(last, resumed, strict=True):
        assert batch["index"].equal(index)
        assert batch["seed"] == seed


@pytest.mark.parametrize(
    ("view", "augmented"),
    [("train", True), ("root", True), ("questioned", False), ("clean", False), ("triggered", False)],
)
def test_only_training_views_are_augmented(data, view, augmented):
    batch = next(iter(data.loader(view)))
    plain, trained = data.images(batch), data.images(batch, training=True)
    assert trained["image"].equal(plain["image"]) != augmented


def test_augmentation_sees_the_roles(source, Corner):
    attack = Attack(Corner(), rate=0.2)
    data = BackdoorDataModule(source, attack=attack, augment=ByRole(clean=CropFlip(4)), batch_size=180)
    batch = next(iter(data.loader("train")))
    plain, trained = data.images(batch)["image"], data.images(batch, training=True)["image"]
    poison = batch["role"] == Role.POISON
    assert trained[poison].equal(plain[poison])
    assert (trained[~poison] != plain[~poison]).flatten(1).any(1).float().mean() > 0.9


def test_benign_changes_clean_rows_of_training_batches_only(source, Corner):
    data = BackdoorDataModule(source, attack=Attack(Corner(benign=True), rate=0.2), augment=None, batch_size=180)
    batch = next(iter(data.loader("train")))
    plain, trained = data.images(batch)["image"], data.images(batch, training=True)["image"]
    clean = batch["role"] == Role.CLEAN
    assert trained[clean].equal(plain[clean] * 0.5)
    assert trained[~clean].equal(plain[~clean])
    questioned = next(iter(data.loader("questioned")))
    assert data.images(questioned, training=True)["image"].equal(data.images(questioned)["image"])


def test_images_leaves_the_batch_as_it_was(data):
    batch = next(iter(data.loader("questioned")))
    before = batch["image"].clone()
    data.images(batch)
    assert batch["image"].equal(before)
    assert batch["image"].dtype == torch.uint8
    assert "poison_rows" in batch


def test_stored_size_comes_before_the_trigger(MemorySource, attack):
    data = BackdoorDataModule(MemorySource(size=16), attack=attack, stored_size=8)
    got = whole(data, "triggered")
    assert got["image"].shape[1:] == (3, 8, 8) == (3, *data.image_size)
    assert (got["image"][:, :, 0, 0] == 1).all()
    torch.testing.assert_close(got["image"][:, 0, 4, 4], pixel(got["index"]))


def test_lent_trigger_is_used_instead(data, Corner):
    class Dot(Corner):
        def forward(self, images, index):
            return images.index_fill(3, torch.tensor([7]), 0.5)

    data.lend(Dot())
    assert (whole(data, "triggered")["image"][..., 7] == 0.5).all()
    data.lend(None)
    assert (whole(data, "triggered")["image"][..., 0, 0] == 1).all()


def test_trigger_moved_in_validation_still_serves_in_training(Corner):
    trigger = Corner()
    trigger.register_buffer("color", torch.ones(3))
    with torch.inference_mode():
        on_device(trigger, torch.device("meta"))
    assert trigger.color.is_meta
    assert not trigger.color.is_inference()
    assert not trigger.training


def test_lending_needs_an_attack(source, Corner):
    with pytest.raises(ValueError, match=r"data\.attack to be set"):
        BackdoorDataModule(source).lend(Corner())


def test_suspicious_rows_come_as_they_were_poisoned(data, monkeypatch, tmp_path):
    questioned = whole(data, "questioned")
    chosen = questioned["index"][torch.tensor([5, 100, 3])]
    data.suspicious = str(tmp_path)
    monkeypatch.setattr("lit_backdoor.data.views.read_selection", lambda path: chosen)
    got = whole(data, "suspicious")
    assert got["index"].equal(chosen)
    for key in ("image", "label", "role"):
        assert got[key].equal(questioned[key][torch.tensor([5, 100, 3])])


def test_selection_is_read_from_its_bundle(data, tmp_path):
    bundle = pytest.importorskip("lit_backdoor.bundle")
    chosen = whole(data, "questioned")["index"][:7]
    bundle.save_bundle(tmp_path / "selection", kind="selection", tensors={"indices": chosen})
    data.suspicious = str(tmp_path / "selection")
    assert whole(data, "suspicious")["index"].equal(chosen)


def test_selection_of_another_split_is_refused(data, monkeypatch):
    root = whole(data, "root")["index"]
    data.suspicious = "elsewhere"
    monkeypatch.setattr("lit_backdoor.data.views.read_selection", lambda path: root[:2])
    with pytest.raises(ValueError, match="2 of 2 in 'elsewhere' are outside it"):
        data.loader("suspicious")


def test_root_from_elsewhere_is_labeled_later(source, MemorySource):
    data = BackdoorDataModule(source, root_source=MemorySource(n_train=30, size=12, names="other"))
    with pytest.warns(UserWarning, match="its 30 labels are discarded, and the suspect of each stage labels"):
        loader = data.loader("root")
    assert (next(iter(loader))["label"] == -1).all()
    labels = torch.arange(30) % 4
    data.set_root_labels(labels)
    batch = data.images(next(iter(loader)))
    assert batch["label"].equal(labels)
    assert batch["clean_label"].equal(labels)
    assert batch["image"].shape == (30, 3, 8, 8)
    with pytest.raises(ValueError, match="Expected 30 labels"):
        data.set_root_labels(labels[:3])


def numbered(classes, named=False):
    part = (torch.zeros(12, 3, 8, 8, dtype=torch.uint8), torch.arange(12) % classes)
    return TensorSource(part, part, [f"class {number}" for number in range(classes)] if named else None)


def test_root_labels_stay_where_classes_are_only_numbered():
    data = BackdoorDataModule(numbered(4), Split(root_pool=0), root_source=numbered(3))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        view = data.get_view("root")
    assert view.label.equal(torch.arange(12) % 3)
    assert not view.unlabeled


@pytest.mark.parametrize(
    ("own", "root"), [((4, True), (3, False)), ((4, False), (3, True)), ((3, False), (4, False))],
    ids=["source named", "root named", "more classes"],
)  # fmt: skip
def test_root_labels_that_may_mean_other_classes_are_discarded_with_a_warning(own, root):
    data = BackdoorDataModule(numbered(*own), Split(root_pool=0), root_source=numbered(*root))
    with pytest.warns(UserWarning, match="its 12 labels are discarded.*give both the same class_names"):
        view = data.get_view("root")
    assert (view.label == -1).all()
    assert view.unlabeled


def test_root_images_without_labels_need_no_warning(source):
    pictures = numbered(4)
    pictures._class_names = ()
    pictures.train().labels.fill_(-1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert BackdoorDataModule(source, Split(root_pool=0), root_source=pictures).get_view("root").unlabeled


def test_counts(data):
    assert data.counts == {"train": 180, "root": 20, "clean": 50, "poison": 18, "cover": 9, "triggered": 37}


def test_small_root_still_gives_a_step(data):
    loader = data.loader("root", shuffle=True, batch_size=512)
    assert len(loader) == 1
    assert len(next(iter(loader))["index"]) == 20


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"batch_size": 0}, r"data\.batch_size to be at least 1"),
        ({"num_workers": 10**6}, r"data\.num_workers to be at most 1,024"),
        ({"stored_size": 10**6}, r"data\.stored_size to be at most 4,096"),
        ({"eval_batch_size": -1}, r"data\.eval_batch_size"),
        ({"num_workers": -1}, r"data\.num_workers"),
        ({"view": "rooot"}, "Did you mean 'root'"),
        ({"augment": "crop_flop"}, r"data\.augment to be 'crop_flip'"),
    ],
)
def test_arguments_are_checked(source, arguments, message):
    with pytest.raises(ValueError, match=message):
        BackdoorDataModule(source, **arguments)


@pytest.mark.parametrize(
    ("view", "message"),
    [("cleen", "Did you mean 'clean'"), ("triggered", r"data\.attack"), ("suspicious", r"data\.suspicious")],
)
def test_views_that_cannot_be_are_explained(source, view, message):
    with pytest.raises(ValueError, match=message):
        BackdoorDataModule(source).loader(view)


def test_empty_root_is_explained(source):
    with pytest.raises(ValueError, match="'root' has no rows"):
        BackdoorDataModule(source, Split(root_pool=0)).loader("root")


def test_target_is_checked_against_the_classes(source, Corner):
    with pytest.raises(ValueError, match="class from 0 to 3, got 4"):
        BackdoorDataModule(source, attack=Attack(Corner(), target=4)).setup()


def test_pickles_with_its_views(data):
    before = whole(data, "train")
    after = whole(pickle.loads(pickle.dumps(data)), "train")
    assert after["image"].equal(before["image"])


def test_setup_is_done_once_and_prepare_data_asks_the_source(data, source):
    data.prepare_data()
    data.setup("fit")
    first = data.get_view("train")
    data.setup("test")
    assert source.prepared == 1
    assert data.get_view("train") is first


def test_printing_makes_no_loaders():
    datamodule = tiny.data(tiny.attack(), seed=7)
    assert str(datamodule) == "BackdoorDataModule(TensorSource, Patch, seed=7)"
    assert str(tiny.data()) == "BackdoorDataModule(TensorSource, no attack, seed=3)"
    assert not datamodule._views
