"""The smallest parts that every stage runs on."""

import tempfile

import lightning.pytorch as pl
import torch
import yaml

from lit_backdoor.data import BackdoorDataModule, Split, TensorSource
from lit_backdoor.models import TimmClassifier, UNet
from lit_backdoor.triggers import Attack, Patch

CLASSES, SIZE = 4, 16


def source(n_train=96, n_test=30, seed=0):
    """Noise with a bright band whose place says the class: learned in an epoch or two."""
    generator = torch.Generator().manual_seed(seed)

    def part(count):
        labels = torch.arange(count) % CLASSES
        images = torch.randint(0, 120, (count, 3, SIZE, SIZE), generator=generator, dtype=torch.uint8)
        for label in range(CLASSES):
            images[labels == label, :, 4 * label : 4 * label + 4] += 120
        return images, labels

    return TensorSource(part(n_train), part(n_test))


def attack(rate=0.25, **options):
    return Attack(Patch(size=3, place=(1, 1), pattern="white"), target=0, rate=rate, **options)


def data(plan=None, **options):
    given = {"split": Split(root_pool=24), "augment": None, "batch_size": 24, "eval_batch_size": 16, "seed": 3}
    return BackdoorDataModule(options.pop("source", None) or source(), attack=plan, **{**given, **options})


def classifier(seed=0, channels=4):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return TimmClassifier("resnet18", num_classes=CLASSES, input_size=SIZE, channels=channels)


def unet(seed=0, start="random"):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return UNet(base=4, downs=2, start=start)


def trainer(**options):
    given = {
        "accelerator": "cpu", "devices": 1, "logger": False, "enable_progress_bar": False, "max_epochs": 1,
        "enable_model_summary": False, "enable_checkpointing": False, "num_sanity_val_steps": 0,
        "default_root_dir": tempfile.gettempdir(),
    }  # fmt: skip
    return pl.Trainer(**{**given, **options})


def fit(stage, datamodule, **options):
    """Train a stage without validation; gives the stage."""
    trainer(**{"limit_val_batches": 0, **options}).fit(stage, datamodule=datamodule)
    return stage


def recorded(stage):
    """Keep what a stage's losses are in every step, and the batch: a list that grows."""
    steps, losses = [], stage.losses

    def record(batch):
        found = losses(batch)
        steps.append({**{name: value.detach() for name, value in found.items()}, "batch": batch})
        return found

    stage.losses = record
    return steps


def tested(stage, datamodule, **options):
    """Test a stage; gives the metrics of all loaders by name."""
    results = trainer().test(stage, datamodule=datamodule, verbose=False, **options)
    return {name: value for result in results for name, value in result.items()}


def tensors(module):
    return {name: value.clone() for name, value in module.state_dict().items()}


def moved(before, after):
    """Names of the floating tensors that changed."""
    return {name for name, value in before.items() if value.is_floating_point() and not torch.equal(value, after[name])}


SIGNS = {
    "class_path": "lit_backdoor.data.SyntheticSigns",
    "init_args": {"num_classes": CLASSES, "train_per_class": 30, "test_per_class": 8, "size": SIZE},
}
NET = {
    "class_path": "lit_backdoor.models.TimmClassifier",
    "init_args": {"name": "resnet18", "num_classes": CLASSES, "input_size": SIZE, "channels": 4},
}
UNET = {"class_path": "lit_backdoor.models.UNet", "init_args": {"base": 4, "downs": 2}}
QUIET = {
    "accelerator": "cpu", "devices": 1, "num_sanity_val_steps": 0, "enable_model_summary": False, "logger": False,
    "enable_progress_bar": False, "limit_val_batches": 0,
}  # fmt: skip


def chain(**changes):
    """A chain of the demo's shape that runs in a second or two."""
    return {
        "format": 1,
        "seed": 5,
        "data": {
            "class_path": "lit_backdoor.data.BackdoorDataModule",
            "init_args": {
                "source": SIGNS,
                "split": {"root_pool": 24},
                "attack": "badnets_3x3",
                "batch_size": 32,
                "augment": {"class_path": "lit_backdoor.data.CropFlip", "init_args": {"padding": 1, "flip": False}},
            },
        },
        "trainer": QUIET,
        "stages": {
            "victim": {
                "model": {"class_path": "lit_backdoor.stages.PoisonedTraining", "init_args": {"classifier": NET}},
                "trainer": {"max_epochs": 3},
            },
            "select": {
                "run": "predict",
                "model": {"class_path": "lit_backdoor.stages.LowestLoss", "init_args": {"share": 0.1}},
                "inputs": {"model.suspect": "victim"},
            },
            "generate": {
                "model": {
                    "class_path": "lit_backdoor.defenses.atclean.CollisionGenerator",
                    "init_args": {"generator": UNET, "layers": 2},
                },
                "inputs": {"model.suspect": "victim", "data.suspicious": "select"},
                "trainer": {"max_epochs": 2},
            },
            "clean": {
                "model": {"class_path": "lit_backdoor.stages.UnlearningFineTune"},
                "inputs": {"model.suspect": "victim", "model.generator": "generate"},
                "trainer": {"max_epochs": 2},
            },
        },
        "summary": {"before": "victim", "after": "clean"},
        **changes,
    }


def write_chain(path, **changes):
    path.write_text(yaml.safe_dump(chain(**changes), sort_keys=False))
    return str(path)
