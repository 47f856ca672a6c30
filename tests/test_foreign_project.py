"""Somebody else's project, from poisoned data to a cleaned model, with nothing of theirs renamed or displaced."""

from types import SimpleNamespace

import lightning.pytorch as pl
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from lit_backdoor.data import BackdoorDataModule, DataModuleSource, RootDataModule, Split, wrap
from lit_backdoor.defenses.atclean import CollisionGenerator
from lit_backdoor.models import wrap_classifier
from lit_backdoor.stages import Evaluation, FineTune, LowestLoss, UnlearningFineTune
from lit_backdoor.stages.callbacks import AttackSuccessCallback
from lit_backdoor.triggers import Attack, Patch, Role

MEAN, STD = (0.45, 0.4, 0.5), (0.25, 0.2, 0.3)
QUIET = {"accelerator": "cpu", "enable_progress_bar": False, "enable_model_summary": False}


def stripes(count, seed):
    """Noisy stripes in four directions, [0, 1]; the direction is the class."""
    draw = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % 4
    angle = (labels * torch.pi / 4).view(-1, 1, 1)
    y, x = torch.meshgrid(torch.arange(16), torch.arange(16), indexing="ij")
    phase = 2 * torch.pi * torch.rand(count, 1, 1, generator=draw)
    waves = torch.sin(x * angle.cos() + y * angle.sin() + phase)
    noise = torch.randn(count, 3, 16, 16, generator=draw)
    return TensorDataset((0.45 + 0.2 * waves[:, None] + 0.15 * noise).clamp(0, 1), labels)


def normalized(images):
    mean, std = (torch.tensor(values).view(-1, 1, 1) for values in (MEAN, STD))
    return (images - mean) / std


class TheirData(pl.LightningDataModule):
    def __init__(self, seed=0, count=800):
        super().__init__()
        self.seed, self.count = seed, count

    def train_dataloader(self):
        return DataLoader(stripes(self.count, self.seed), batch_size=32, shuffle=True)

    def val_dataloader(self):
        return DataLoader(stripes(200, 1000), batch_size=64)


class TheirModel(pl.LightningModule):
    """Normalizes in a batch hook of its own and logs under names of its own."""

    def __init__(self):
        super().__init__()
        conv = [(3, 16), (16, 32), (32, 32)]
        layers = []
        for wide, wider in conv:
            layers += [nn.Conv2d(wide, wider, 3, padding=1), nn.BatchNorm2d(wider), nn.ReLU(), nn.MaxPool2d(2)]
        self.net = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 4))
        self.hooks, self.validated = [], 0

    def forward(self, images):
        return self.net(images)

    def on_before_batch_transfer(self, batch, dataloader_idx):
        self.hooks.append(("before", self.trainer.training))
        return batch

    def on_after_batch_transfer(self, batch, dataloader_idx):
        self.hooks.append(("after", self.trainer.training))
        images, labels = batch
        return normalized(images), labels

    def training_step(self, batch, batch_idx):
        images, labels = batch
        loss = F.cross_entropy(self(images), labels)
        self.log("train_loss", loss)
        return loss

    def validation_step(self, batch, batch_idx):
        images, labels = batch
        self.validated += len(labels)
        self.log("val_acc", (self(images).argmax(1) == labels).float().mean())

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), 3e-3)


def train(folder, data, *callbacks, epochs=4):
    torch.manual_seed(0)
    model = TheirModel()
    best = ModelCheckpoint(folder, monitor="val_acc", mode="max", filename="{epoch}")
    options = {"max_epochs": epochs, "logger": CSVLogger(folder, name="", version=""), "log_every_n_steps": 10}
    trainer = pl.Trainer(callbacks=[best, *callbacks], **options, **QUIET)
    trainer.fit(model, data)
    return SimpleNamespace(trainer=trainer, model=model, best=best, logged=(folder / "metrics.csv").read_text())


@pytest.fixture(scope="module")
def attack():
    return Attack(Patch(size=3, place=(1, 1), pattern="white"), target=0, rate=0.1)


@pytest.fixture(scope="module")
def poisoned(attack, tmp_path_factory):
    """Their training, with our data and our callback."""
    wrapped = wrap(TheirData(), attack, MEAN, STD)
    return train(tmp_path_factory.mktemp("theirs"), wrapped, AttackSuccessCallback())


@pytest.fixture(scope="module")
def cleaned(attack, poisoned, tmp_path_factory):
    """Our stages on their model: select, generate, unlearn."""
    selection = str(tmp_path_factory.mktemp("ours") / "selection")
    suspect = suspect_of(poisoned.model)
    before = {name: value.clone() for name, value in poisoned.model.state_dict().items()}
    root = DataModuleSource(TheirData(seed=1, count=320))
    source = DataModuleSource(TheirData())
    data = BackdoorDataModule(
        source, Split(root_pool=0), attack, augment=None, batch_size=32, suspicious=selection, root_source=root
    )
    select = LowestLoss(suspect, share=0.02)
    ours(1).predict(select, data, return_predictions=False)
    select.export(selection)
    generate = CollisionGenerator(suspect, layers=3)
    ours(6).fit(generate, data)
    clean = UnlearningFineTune(suspect, generate.generator)
    ours(6).fit(clean, data)
    return SimpleNamespace(data=data, suspect=suspect, before=before, select=select, generate=generate, clean=clean)


def suspect_of(model):
    return wrap_classifier(model.net, split="11", num_classes=4, input_size=16, mean=MEAN, std=STD)


def ours(epochs):
    return pl.Trainer(max_epochs=epochs, logger=False, enable_checkpointing=False, **QUIET)


def rates(model, attack):
    """Count ASR and their accuracy by hand."""
    images, labels = stripes(200, 1000).tensors
    with torch.no_grad():
        guess = model.eval()(normalized(attack.trigger(images, torch.arange(200)))).argmax(1)
        right = model(normalized(images)).argmax(1) == labels
    return float((guess == 0)[labels != 0].float().mean()), float(right.float().mean())


def test_the_backdoor_is_planted_and_counted(poisoned, attack):
    asr, accuracy = rates(poisoned.model, attack)
    metrics = poisoned.trainer.callback_metrics
    assert asr > 0.9
    assert accuracy > 0.9
    assert metrics["val/asr"].item() == pytest.approx(asr, abs=1e-3)
    assert metrics["val_acc"].item() == pytest.approx(accuracy, abs=1e-3)


def test_no_metric_changes_its_name(poisoned, tmp_path):
    alone = train(tmp_path, TheirData(), epochs=1)
    assert set(poisoned.trainer.callback_metrics) - set(alone.trainer.callback_metrics) == {"val/asr", "val/ra"}
    assert set(alone.trainer.callback_metrics) == {"train_loss", "val_acc"}
    header, header_alone = (run.logged.splitlines()[0].split(",") for run in (poisoned, alone))
    assert set(header) - set(header_alone) == {"val/asr", "val/ra"}
    assert set(header_alone) <= set(header)


def test_no_loader_is_added(poisoned):
    sanity, epochs = 2 * 64, 4 * 200
    assert poisoned.model.validated == sanity + epochs
    assert isinstance(poisoned.trainer.val_dataloaders, DataLoader)


def test_their_checkpoint_keeps_the_best_by_their_metric(poisoned):
    scores = [float(row["val_acc"]) for row in _rows(poisoned.logged) if row["val_acc"]]
    assert poisoned.trainer.checkpoint_callbacks == [poisoned.best]
    assert poisoned.best.best_model_score.item() == pytest.approx(max(scores), abs=1e-5)
    saved = torch.load(poisoned.best.best_model_path, weights_only=True)
    assert set(saved["state_dict"]) == set(TheirModel().state_dict())
    TheirModel.load_from_checkpoint(poisoned.best.best_model_path)


def _rows(text):
    header, *lines = (line.split(",") for line in text.splitlines())
    return [dict(zip(header, line, strict=True)) for line in lines]


def test_their_hooks_see_every_batch(poisoned):
    steps = 4 * 25
    for kind in ("before", "after"):
        assert poisoned.model.hooks.count((kind, True)) == steps
        assert poisoned.model.hooks.count((kind, False)) >= 2 + 4 * 4  # their validation, and our pass


def test_our_view_of_their_data_has_the_same_poisoned_rows(cleaned, attack):
    questioned = cleaned.data.get_view("questioned")
    planned = attack.roles(stripes(800, 0).tensors[1], seed=0)
    assert questioned.role.equal(planned)
    assert int((planned == Role.POISON).sum()) == 80


def test_our_view_of_their_images_is_exact_to_a_byte(cleaned):
    batch = next(iter(cleaned.data.loader("clean", batch_size=8)))
    theirs = stripes(200, 1000).tensors[0][:8]
    torch.testing.assert_close(cleaned.data.images(batch)["image"], theirs, atol=0.5 / 255 + 1e-6, rtol=0)


def test_the_wrapped_net_takes_unit_images(poisoned):
    images = stripes(16, 5).tensors[0]
    suspect = suspect_of(poisoned.model).eval()
    with torch.no_grad():
        torch.testing.assert_close(suspect(images), poisoned.model.eval()(normalized(images)), atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(suspect.head(suspect.features(images)), suspect(images), atol=1e-4, rtol=1e-4)


def test_selected_rows_hold_more_poison_than_the_set(cleaned):
    assert len(cleaned.data.get_view("suspicious")) == 16
    assert (cleaned.data.get_view("suspicious").role == Role.POISON).float().mean() > 0.2


def test_the_stages_leave_their_model_alone(poisoned, cleaned):
    for name, value in poisoned.model.state_dict().items():
        assert value.equal(cleaned.before[name]), name


def test_every_layer_of_the_copy_moved(cleaned):
    before, after = cleaned.suspect.state_dict(), cleaned.clean.classifier.state_dict()
    still = [name for name, value in before.items() if value.is_floating_point() and value.equal(after[name])]
    assert not still


def test_their_module_is_clean_with_the_weights_handed_back(poisoned, cleaned, attack, tmp_path):
    before, _ = rates(poisoned.model, attack)
    model = TheirModel()
    model.net.load_state_dict(cleaned.clean.classifier.net.state_dict())
    asr, accuracy = rates(model, attack)
    assert asr < 0.3 < before
    assert accuracy > 0.9
    trainer = pl.Trainer(callbacks=[AttackSuccessCallback()], logger=False, **QUIET, default_root_dir=tmp_path)
    trainer.validate(model, wrap(TheirData(), attack, MEAN, STD), verbose=False)
    assert trainer.callback_metrics["val/asr"].item() == pytest.approx(asr, abs=1e-3)


def test_our_evaluation_counts_what_their_module_says(cleaned, attack):
    tester = ours(1)
    tester.test(Evaluation(cleaned.suspect), cleaned.data, verbose=False)
    assert tester.callback_metrics["test/asr"] > 0.9
    tester.test(Evaluation(cleaned.clean.classifier), cleaned.data, verbose=False)
    assert tester.callback_metrics["test/asr"] < 0.3


def test_a_stage_needs_no_attack_and_no_poisoned_data(cleaned):
    data = RootDataModule(DataModuleSource(TheirData(seed=1, count=320)), Split(train=160, root_pool=160), augment=None)
    stage = FineTune(cleaned.suspect)
    ours(1).fit(stage, data)
    assert not stage.classifier.net[0].weight.equal(cleaned.suspect.net[0].weight)


def test_a_net_object_cannot_be_written_and_says_so(cleaned, tmp_path):
    with pytest.raises(ValueError, match="by class path"):
        cleaned.clean.export(tmp_path / "clean")
