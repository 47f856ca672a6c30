import lightning.pytorch as pl
import torch
from torch import nn
from torch.nn import functional as F

from lit_backdoor.data import NoAugment, PoisonedDataModule, RootDataModule


class Probe(pl.LightningModule):
    views = ("root",)

    def __init__(self):
        super().__init__()
        self.layer, self.seen, self.counted = nn.Linear(192, 4), [], {}

    def training_step(self, batch, batch_idx):
        parts = batch.values() if "view" not in batch else [batch]
        self.seen.append([(part["view"], part["index"].clone(), part["image"].clone()) for part in parts])
        return sum(F.cross_entropy(self.layer(part["image"].flatten(1)), part["label"]) for part in parts)

    def validation_step(self, batch, batch_idx, dataloader_idx=0):
        self.counted[batch["view"]] = self.counted.get(batch["view"], 0) + int(batch["valid"].sum())

    def predict_step(self, batch, batch_idx, dataloader_idx=0):
        return batch["index"]

    test_step = validation_step

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.1)


def trainer(**options):
    return pl.Trainer(
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_checkpointing=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        **{"max_epochs": 2, **options},
    )


def test_stage_names_its_views_and_short_ones_go_on(data):
    probe = Probe()
    probe.views = ("root", "train")
    trainer().fit(probe, data)
    assert len(probe.seen) == 2 * 11
    root, train = probe.seen[0]
    assert (root[0], train[0]) == ("root", "train")
    first, second = probe.seen[0][0][1], probe.seen[1][0][1]  # a pass of the root set is one step
    assert not first.equal(second)
    assert probe.counted == {"clean": 2 * 50, "triggered": 2 * 50}


def test_training_is_augmented_under_a_trainer(data):
    probe = Probe()
    trainer(max_epochs=1).fit(probe, data)
    _, index, image = probe.seen[0][0]
    flat = (index % 200 + 10) / 255  # MemorySource's pixels
    assert not image.equal(flat.view(-1, 1, 1, 1).expand_as(image))


def test_argument_view_wins_over_the_stage(source, attack):
    probe = Probe()
    trainer(max_epochs=1).fit(probe, PoisonedDataModule(source, attack, batch_size=64))
    assert {step[0][0] for step in probe.seen} == {"train"}
    probe = Probe()
    trainer(max_epochs=1).fit(probe, RootDataModule(source, batch_size=64, augment=NoAugment()))
    assert {step[0][0] for step in probe.seen} == {"root"}
    assert probe.counted == {"clean": 50}


def test_predict_goes_in_order(data):
    probe = Probe()
    probe.views = ("questioned",)
    index = torch.cat(trainer().predict(probe, data))
    assert index.equal(data.get_view("questioned").index)


def test_hyperparameters_stay_empty(data):
    assert not data.hparams
