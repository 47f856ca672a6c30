import json
import math

import pytest
import torch

from lit_backdoor.bundle import save_bundle
from lit_backdoor.data import BackdoorDataModule
from lit_backdoor.data.sources import SyntheticSigns
from lit_backdoor.data.split import Split
from lit_backdoor.models import TimmClassifier, UNet
from lit_backdoor.triggers import Attack, Role, Trigger


class Corner(Trigger):
    """Whitens a corner."""

    def __init__(self, size=5):
        super().__init__()
        self.size = size

    def forward(self, images, index):
        images = images.clone()
        images[..., -self.size :, -self.size :] = 1
        return images


def corner_attack(**settings):
    return Attack(Corner(), **{"target": 3, "rate": 0.1, **settings})


def signs(num_classes=16, size=32, rows=12, attack=None):
    source = SyntheticSigns(num_classes, rows, 3, size)
    return BackdoorDataModule(source, Split(root_pool=0.2), attack, seed=1)


class Folder:
    """A chain's folder with real, small, untrained bundles and made-up results, whose parts can be left out."""

    def __init__(self, path, data):
        self.path, self.data = path, data
        self.net = {"name": "resnet18", "num_classes": data.num_classes, "input_size": 32, "channels": 4}
        attack = data.attack
        self.results = {
            "format": 1, "chain": "atclean_signs", "seed": 1,
            "data": {"source": "lit_backdoor.data.SyntheticSigns",
                     "attack": type(attack.trigger).__name__ if attack else None,
                     "policy": type(attack.policy).__name__ if attack else None,
                     "target": attack.target if attack else None, "rate": attack.rate if attack else None,
                     "n_train": data.counts["train"], "n_root": data.counts["root"]},
            "counts": {"clean": data.counts["clean"], "triggered": data.counts["triggered"]},
            "versions": {"lit_backdoor": "0.1.0", "torch": "2.15.0"}, "hardware": "2 CPU cores (x86_64)",
            "stages": [], "summary": {"before": None, "after": None, "der": None, "dem": None},
        }  # fmt: skip

    def stage(self, name, kind, class_path, metrics, inputs=None, history=None, **bundle):
        save_bundle(self.path / name, kind=kind, meta={"stage": class_path}, **bundle)
        if history:
            (self.path / name / "history.json").write_text(json.dumps(history))
        self.results["stages"].append({
            "name": name, "kind": kind, "class_path": class_path, "status": "ran", "seconds": 12.34, "key": "k",
            "hash": "h", "inputs": inputs or {}, "bundle": name, "metrics": metrics,
        })  # fmt: skip

    def suspect(self, name, metrics, class_path="lit_backdoor.stages.PoisonedTraining", seed=0, **more):
        torch.manual_seed(seed)
        self.stage(name, "suspect", class_path, metrics, module=TimmClassifier(**self.net), **more)

    def generator(self, name="generate", dof=0.93, **more):
        torch.manual_seed(2)
        net = UNet(base=8, downs=2, start="random", bound=0.2)
        path = "lit_backdoor.defenses.atclean.Generator"
        self.stage(name, "generator", path, {"dof": dof}, {"model.suspect": "victim"}, module=net, **more)

    def selection(self, name="select", losses=None, chosen=None, cls="LowestLoss", precision=1.0):
        view = self.data.get_view("questioned")
        generator = torch.Generator().manual_seed(0)
        if losses is None:
            draws = torch.randn(len(view), generator=generator)
            losses = torch.exp(torch.where(view.role == Role.POISON, draws * 0.8 - 8, draws * 1.7 - 3.2))
        indices = view.index[losses.argsort()[:6]] if chosen is None else view.index[chosen]
        metrics = {"selection_precision": precision, "selection_recall": 0.1}
        tensors = {"scores": losses.float(), "rows": view.index.clone(), "indices": indices.clone()}
        path, inputs = f"lit_backdoor.stages.{cls}", {"model.suspect": "victim"}
        self.stage(name, "selection", path, metrics, inputs, tensors=tensors)

    def summary(self, before, after=None, der=None, dem=None):
        self.results["summary"] = {"before": before, "after": after, "der": der, "dem": dem}

    def write(self):
        (self.path / "results.json").write_text(json.dumps(self.results))
        return self.path


BEFORE = {"acc": 0.934, "asr": 0.998, "ra": 0.002}
AFTER = {"acc": 0.9275, "asr": 0.0132, "ra": 0.9013}


def training_history(epochs=8):
    return [
        {"epoch": e, "train/loss": 2.6 * math.exp(-0.5 * e) + 0.05, "val/acc": 0.934 - 0.75 * math.exp(-0.7 * e),
         "val/asr": 0.998 - 0.95 * math.exp(-1.3 * e), "val/ra": 0.3 * math.exp(-0.9 * e) + 0.002}
        for e in range(epochs)
    ]  # fmt: skip


def cleaning_history(epochs=5):
    return [
        {"epoch": e, "train/loss": 0.4 * math.exp(-0.4 * e) + 0.1, "val/acc": 0.9275 - 0.04 * math.exp(-e),
         "val/asr": 0.0132 + 0.5 * math.exp(-1.5 * e), "val/ra": 0.9013 - 0.5 * math.exp(-1.4 * e)}
        for e in range(epochs)
    ]  # fmt: skip


def full_chain(path, data):
    folder = Folder(path, data)
    folder.suspect("victim", BEFORE, history=training_history())
    if data.attack is not None:
        folder.selection()
    folder.generator(history=[{"epoch": e, "train/loss": 5.0 / (e + 1)} for e in range(20)])
    folder.suspect(
        "clean", AFTER, "lit_backdoor.stages.UnlearningFineTune", seed=3, history=cleaning_history(),
        inputs={"model.suspect": "victim", "model.generator": "generate"},
    )  # fmt: skip
    folder.summary(BEFORE, AFTER, 0.9891, 0.9899)
    return folder


@pytest.fixture
def data():
    return signs(attack=corner_attack())


@pytest.fixture
def chain(tmp_path, data):
    """The whole ATClean chain, not written yet."""
    return full_chain(tmp_path, data)


@pytest.fixture
def empty_chain(tmp_path):
    """Make a chain's folder without a stage, for given data."""
    return lambda data: Folder(tmp_path, data)


@pytest.fixture(name="signs")
def signs_factory():
    return signs


@pytest.fixture(name="corner_attack")
def corner_attack_factory():
    return corner_attack
