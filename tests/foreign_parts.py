"""A project that knows nothing of ours: its data module and its module."""

import lightning.pytorch as pl
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset, default_collate

MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.25, 0.3)


def normalized(images):
    return (images - torch.tensor(MEAN).view(-1, 1, 1)) / torch.tensor(STD).view(-1, 1, 1)


class Pictures(Dataset):
    """Row i is an image of the gray i / 200; its class is i mod 4."""

    def __init__(self, count, form):
        self.count, self.form, self.reads = count, form, 0

    def __len__(self):
        return self.count

    def __getitem__(self, index):
        self.reads += 1
        image, label = torch.full((3, 8, 8), index / 200), index % 4
        return (image, label) if self.form == "tuple" else {"pixel_values": image, "labels": label, "row": index}


def collate(samples):
    collate.calls += 1
    return default_collate(samples)


collate.calls = 0


class ForeignData(pl.LightningDataModule):
    """Normalizes in its own hook, after the transfer."""

    def __init__(self, form="tuple", n_train=100, n_val=30):
        super().__init__()
        self.form, self.sizes, self.calls = form, (n_train, n_val), []

    def prepare_data(self):
        self.calls.append("prepare_data")

    def setup(self, stage):
        self.calls.append("setup")
        self.train, self.val = (Pictures(count, self.form) for count in self.sizes)

    def train_dataloader(self):
        return DataLoader(self.train, batch_size=25, shuffle=True, collate_fn=collate)

    def val_dataloader(self):
        return DataLoader(self.val, batch_size=7)

    def on_before_batch_transfer(self, batch, dataloader_idx):
        self.calls.append("before")
        return batch

    def on_after_batch_transfer(self, batch, dataloader_idx):
        self.calls.append("after")
        if self.form == "tuple":
            return [normalized(batch[0]), *batch[1:]]
        return {**batch, "pixel_values": normalized(batch["pixel_values"])}


class ForeignModule(pl.LightningModule):
    """Keeps the training batches it was given, and logs a loss of its own."""

    def __init__(self):
        super().__init__()
        self.layer, self.batches, self.validated = nn.Linear(192, 4), [], 0

    def forward(self, images):
        return self.layer(images.flatten(1))

    def training_step(self, batch, batch_idx):
        self.batches.append(batch)
        image, label = batch[:2] if isinstance(batch, list | tuple) else (batch["pixel_values"], batch["labels"])
        return F.cross_entropy(self(image), label)

    def validation_step(self, batch, batch_idx):
        image, label = batch[:2] if isinstance(batch, list | tuple) else (batch["pixel_values"], batch["labels"])
        self.validated += len(label)
        self.log("val_loss", F.cross_entropy(self(image), label))

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.01)


def trainer(**options):
    given = {"accelerator": "cpu", "logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    return pl.Trainer(**{**given, "enable_checkpointing": False, "max_epochs": 1, **options})
