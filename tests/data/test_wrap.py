import pickle

import pytest
import torch
from foreign_parts import MEAN, STD, ForeignData, ForeignModule, Pictures, collate, normalized, trainer
from torch.utils.data import DataLoader, IterableDataset, TensorDataset, WeightedRandomSampler

from lit_backdoor.data import BackdoorDataModule, DataModuleSource, Split, wrap
from lit_backdoor.data.foreign import Normalization
from lit_backdoor.triggers.base import Attack, Role


@pytest.fixture
def attack(Corner):
    return Attack(Corner(), target=1, rate=0.2, cover_rate=0.1)


def parts(batch):
    return (batch[0], batch[1]) if isinstance(batch, list) else (batch["pixel_values"], batch["labels"])


def epoch_of(batches):
    image, label = (torch.cat(items) for items in zip(*map(parts, batches), strict=True))
    row = ((image[:, 0, 7, 7] * STD[0] + MEAN[0]) * 200).round().long()
    order = row.argsort()
    return image[order], label[order], row[order]


@pytest.mark.parametrize("form", ["tuple", "dict"])
def test_planned_rows_are_stamped_and_relabeled_in_the_batchs_own_shape(attack, form):
    module, data = ForeignModule(), wrap(ForeignData(form), attack, MEAN, STD)
    trainer(max_epochs=2).fit(module, data)
    roles = attack.roles(torch.arange(100) % 4, seed=0)
    for batches in (module.batches[:4], module.batches[4:]):  # the same rows in every epoch
        image, label, row = epoch_of(batches)
        assert row.equal(torch.arange(100))
        poison, cover = roles == Role.POISON, roles == Role.COVER
        assert label.equal(torch.where(poison, 1, row % 4))
        white = normalized(torch.ones(3, 1, 1)).flatten()
        torch.testing.assert_close(image[poison][:, :, 0, 1], white.expand(20, -1))
        torch.testing.assert_close(image[cover][:, :, 0, 2], white.expand(10, -1))
        clean = normalized((row / 200).view(-1, 1, 1, 1).expand(-1, 3, 8, 8))
        assert image[roles == Role.CLEAN].equal(clean[roles == Role.CLEAN])  # to the bit
    if form == "dict":
        assert set(module.batches[0]) == {"pixel_values", "labels", "row"}


def test_its_own_collate_and_hooks_are_called(attack):
    data, before = ForeignData(), collate.calls
    trainer().fit(ForeignModule(), wrap(data, attack, MEAN, STD))
    assert collate.calls > before
    assert data.calls[:2] == ["prepare_data", "setup"]
    assert {"before", "after"} <= set(data.calls)


def test_hooks_of_the_module_are_called_where_the_data_module_has_none(attack):
    class Plain(ForeignData):
        on_before_batch_transfer = ForeignData.__mro__[1].on_before_batch_transfer
        on_after_batch_transfer = ForeignData.__mro__[1].on_after_batch_transfer

    class Hooked(ForeignModule):
        def on_after_batch_transfer(self, batch, dataloader_idx):
            return [normalized(batch[0]), batch[1]]

    module = Hooked()
    trainer().fit(module, wrap(Plain(), attack, MEAN, STD))
    _, label, row = epoch_of(module.batches)
    assert row.equal(torch.arange(100))
    assert int((label != row % 4).sum()) == int(((attack.roles(row % 4) == Role.POISON) & (row % 4 != 1)).sum())


def test_validation_stays_clean(attack):
    module = ForeignModule()
    fit = trainer()
    fit.fit(module, wrap(ForeignData(), attack, MEAN, STD))
    assert set(fit.callback_metrics) == {"val_loss"}
    assert attack.trigger.rows_seen  # and yet only training rows were stamped
    assert sum(attack.trigger.rows_seen) == 30


def test_normalized_images_without_mean_and_std_are_an_error(attack):
    with pytest.raises(ValueError, match="Give the mean and std"):
        trainer().fit(ForeignModule(), wrap(ForeignData(), attack))


def test_bytes_stay_bytes(attack):
    class Bytes(ForeignData):
        def setup(self, stage):
            images = torch.arange(100).to(torch.uint8).view(-1, 1, 1, 1).expand(-1, 3, 8, 8)
            self.train = self.val = TensorDataset(images, torch.arange(100) % 4)

        def train_dataloader(self):
            return DataLoader(self.train, batch_size=100)

        def on_after_batch_transfer(self, batch, dataloader_idx):
            return batch

    data = wrap(Bytes(), attack)
    data.setup("fit")
    image, _ = data.on_after_batch_transfer(next(iter(data.train_dataloader())), 0)
    assert image.dtype == torch.uint8
    poison = attack.roles(torch.arange(100) % 4) == Role.POISON
    assert (image[poison][:, :, 0, 1] == 255).all()
    assert image[:, 0, 7, 7].equal(torch.arange(100).to(torch.uint8))


def test_its_sampler_is_kept(attack):
    class Weighted(ForeignData):
        def train_dataloader(self):
            weights = torch.zeros(100).index_fill(0, torch.arange(0, 100, 10), 1.0)
            return DataLoader(self.train, batch_size=10, sampler=WeightedRandomSampler(weights, 30), drop_last=True)

    data = wrap(Weighted(), attack)
    data.setup("fit")
    loader = data.train_dataloader()
    rows = torch.cat([marked.rows for marked in loader])
    assert len(rows) == 30
    assert not (rows % 10).any()
    assert loader.drop_last


def test_reading_labels_moves_no_random_state(attack):
    data = wrap(ForeignData(), attack)
    data.setup("fit")
    before = torch.get_rng_state()
    data.train_dataloader()
    assert torch.get_rng_state().equal(before)


def test_benign_changes_the_clean_rows(Corner):
    attack = Attack(Corner(benign=True), rate=0.2)
    module = ForeignModule()
    trainer().fit(module, wrap(ForeignData(), attack, MEAN, STD))
    image = torch.cat([batch[0] for batch in module.batches]) * STD[0] + MEAN[0]
    assert float(image[:, 0, 7, 7].max()) > 0.3
    assert int((image[:, 0, 7, 7] <= 0.5 * 99 / 200 + 1e-4).sum()) >= 80


def test_streams_and_several_loaders_are_refused(attack):
    class Stream(IterableDataset):
        def __iter__(self):
            return iter([])

    for loader, message in ((DataLoader(Stream()), "map-style"), ({"a": None}, "one torch DataLoader")):
        data = ForeignData()
        data.train_dataloader = lambda loader=loader: loader
        with pytest.raises(ValueError, match=message):
            wrap(data, attack).train_dataloader()


def test_unknown_batches_are_refused(attack):
    data = wrap(ForeignData("dict"), attack)
    data.setup("fit")
    data.wrapped.train = TensorDataset(torch.zeros(8, 3, 4, 4))
    with pytest.raises(ValueError, match="images, labels"):
        data.train_dataloader()


def test_wrapped_module_pickles_and_shows_the_inner_attributes(attack):
    data = pickle.loads(pickle.dumps(wrap(ForeignData(), attack)))
    assert data.form == "tuple"
    with pytest.raises(AttributeError, match="nothing_like_it"):
        _ = data.nothing_like_it


@pytest.mark.parametrize("form", ["tuple", "dict"])
def test_data_module_becomes_a_source(form, Corner):
    source = DataModuleSource(ForeignData(form))
    assert source.class_names == ("0", "1", "2", "3")
    assert source.image_size == (8, 8)
    rows = source.train()
    assert rows.labels.equal(torch.arange(100) % 4)
    assert rows.images(torch.tensor([0, 50])).flatten(1).unique(dim=1).flatten().tolist() == [0, round(255 * 50 / 200)]
    assert len(source.test()) == 30
    assert source.fingerprint() == DataModuleSource(ForeignData(form)).fingerprint()
    data = BackdoorDataModule(source, Split(root_pool=20), Attack(Corner(), rate=0.2))
    assert data.counts["train"] == 80


class Ready(ForeignData):
    """Serves images that are there already, one in a batch."""

    def __init__(self, *images):
        super().__init__()
        self.rows = [(image, row % 2) for row, image in enumerate(images)]

    def train_dataloader(self):
        return DataLoader(self.rows, batch_size=1)


def gray(value, dtype=torch.float32):
    return torch.full((3, 4, 4), value, dtype=dtype)


@pytest.mark.parametrize(
    ("images", "message"),
    [
        ((gray(0.5), gray(2.0)), r"in \[0, 1\], got values from 2 to 2. Give the mean and std"),
        ((gray(0.5), gray(-0.1)), r"in \[0, 1\], got values from -0.1"),
        ((gray(0.5), gray(float("nan"))), "finite values, got NaN"),
        ((gray(255, torch.int32), gray(65535, torch.int32)), r"0\.\.255 .*, got integers from 65535 to 65535: scale"),
        ((gray(3, torch.int64), gray(-1, torch.int64)), r"0\.\.255 .*, got integers from -1"),
        ((torch.rand(4, 4, 3),), r"1 or 3, H, W\], got \[1, 4, 4, 3\].*permute\(2, 0, 1\)"),
        ((torch.rand(4, 8, 8),), r"1 or 3, H, W\], got \[1, 4, 8, 8\].*convert\('RGB'\)"),
        ((torch.rand(8, 8),), r"1 or 3, H, W\], got \[1, 8, 8\]"),
    ],
)
def test_source_looks_at_every_batch(images, message):
    with pytest.raises(ValueError, match=message):
        DataModuleSource(Ready(*images)).train()


def test_source_refuses_values_that_are_not_finite_though_a_mean_was_given():
    with pytest.raises(ValueError, match="finite values"):
        DataModuleSource(Ready(gray(0.5), gray(float("inf"))), MEAN, STD).train()


@pytest.mark.parametrize(
    ("image", "value"),
    [
        (gray(True, torch.bool), 255),
        (gray(200, torch.int32), 200),
        (gray(200, torch.int64)[:1], 200),
        (gray(7, torch.uint8), 7),
        (gray(1.0, torch.float64), 255),
        (gray(1 + 1e-6), 255),
    ],
)
def test_source_keeps_bytes_and_takes_bool_as_black_and_white(image, value):
    images = DataModuleSource(Ready(image, image)).train().images(torch.arange(2))
    assert images.equal(torch.full((2, 3, 4, 4), value, dtype=torch.uint8))


def test_bool_images_go_to_the_unit_range_and_back():
    images = torch.tensor([True, False]).view(2, 1, 1, 1)
    unit = Normalization().undo(images)
    assert unit.flatten().tolist() == [1, 0]
    assert Normalization().redo(unit, like=images).equal(images)


def test_source_warns_of_images_of_the_integers_0_and_1():
    with pytest.warns(UserWarning, match="train set are all but black"):
        DataModuleSource(Ready(gray(1, torch.int64), gray(0, torch.int64))).train()


def test_source_takes_the_normalization_back():
    class Normalized(ForeignData):
        def setup(self, stage):
            super().setup(stage)
            self.train = [
                (normalized(image), label) for image, label in map(Pictures(20, "tuple").__getitem__, range(20))
            ]

    images = DataModuleSource(Normalized(), MEAN, STD).train().images(torch.arange(20))
    assert images[:, :, 0, 0].equal((torch.arange(20) / 200 * 255).round().to(torch.uint8)[:, None].expand(-1, 3))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"datamodule": DataLoader(Pictures(4, "tuple"))}, "Expected a LightningDataModule, got DataLoader"),
        ({"attack": "badnets"}, "Expected an Attack, such as .*, got 'badnets'"),
        ({"attack": None}, "Expected an Attack, such as"),
        ({"mean": 0.5, "std": 0.5}, "as many means as positive stds"),
        ({"mean": MEAN, "std": (1.0, 0.0, 1.0)}, "as many means as positive stds"),
        ({"mean": (0.5, float("nan"), 0.5), "std": STD}, "all of them finite"),
        ({"mean": MEAN, "std": STD[:2]}, "as many means as positive stds"),
        ({"mean": ("a", "b", "c"), "std": STD}, "as many means as positive stds"),
        ({"num_classes": 0}, "num_classes as a whole number of at least 1, got 0"),
        ({"num_classes": "4"}, "num_classes as a whole number"),
        ({"seed": -1}, "Expected a seed from 0"),
    ],
)
def test_what_is_wrapped_and_how_is_checked_at_once(attack, change, message):
    with pytest.raises(ValueError, match=message):
        wrap(**{"datamodule": ForeignData(), "attack": attack, **change})


def test_labels_beyond_the_number_of_classes_are_refused(attack):
    with pytest.raises(ValueError, match="labels below num_classes, 3, got 3"):
        trainer().fit(ForeignModule(), wrap(ForeignData(), attack, MEAN, STD, num_classes=3))


def test_a_mean_for_another_number_of_channels_is_refused():
    with pytest.raises(ValueError, match="each of the 1 channels of the images, got 3"):
        Normalization(MEAN, STD).undo(torch.zeros(2, 1, 4, 4))
