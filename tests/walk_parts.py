"""What the walks over the package share: every stage, trigger and source is found by being there."""

import importlib
import inspect
import pkgutil

import martini_parts
import tiny
import torch

import lit_backdoor
from lit_backdoor.bundle import open_bundle
from lit_backdoor.data import CropFlip
from lit_backdoor.defenses.btidbf import Decoupling, InversionSettings
from lit_backdoor.defenses.martini import ReconstructionSettings
from lit_backdoor.defenses.pgbd import TeacherMapping
from lit_backdoor.models import Purified, SecretEncoder
from lit_backdoor.recipe import arguments_of
from lit_backdoor.stages import OwnAttack, Stage, StampSearch
from lit_backdoor.triggers import (
    Attack,
    CleanLabel,
    GeneratorTrigger,
    HandwrittenDigits,
    InputAware,
    LabelConsistent,
    LearnedPatch,
    MaskedPattern,
    Secret,
    UniversalNoise,
)


def classes_of(base, *rooms):
    """Every public class of the package that is a ``base`` and not abstract, by name.

    Args:
        base: The class that they derive from.
        *rooms: The packages below `lit_backdoor` that are looked through.
    """
    found = {}
    for info in pkgutil.walk_packages(lit_backdoor.__path__, "lit_backdoor."):
        if info.name.split(".")[1] in rooms:
            for name, cls in vars(importlib.import_module(info.name)).items():
                own = inspect.isclass(cls) and cls.__module__ == info.name and issubclass(cls, base)
                if own and not name.startswith("_") and not _abstract(cls):
                    assert name not in found, f"two classes are called {name}"
                    found[name] = cls
    return found


def _abstract(cls):
    return any(getattr(getattr(cls, key, None), "__isabstractmethod__", False) for key in dir(cls))


def _role(cls):
    """Whether a stage is a role that others fill: it does not say what it makes, or has nothing to train on."""
    silent = cls.outcome is Stage.outcome and cls.result is Stage.result
    return silent or (cls.verb == "fit" and cls.losses is Stage.losses)


STAGES = {
    name: cls
    for name, cls in classes_of(Stage, "stages", "attacks", "defenses").items()
    if cls.kind is not None and not _role(cls)
}
FIT = [name for name, cls in STAGES.items() if cls.verb == "fit"]
PREDICT = [name for name in STAGES if name not in FIT]
DEFENSES = [
    name
    for name in FIT
    if set(STAGES[name].views) == {"root"}
    and "attacks" not in STAGES[name].__module__
    and getattr(STAGES[name], "selection", None) != "oracle"  # says itself that it knows the attack
]


SHORT = {
    "rounds": 1,
    "unlearn_epochs": 1,
    "purify_epochs": 1,
    "images_at_once": 64,
    "steps": 2,
    "num_classes": tiny.CLASSES,
    "width": 4,
    "encoder": lambda: martini_parts.autoencoder().encoder,
    "forget_epochs": 1,
    "injector_steps": 2,
    "auxiliary": 6,
    "search_steps": 2,
    "generator": lambda: tiny.unet(),
    "purifier": lambda: tiny.unet(),
    "search": lambda: StampSearch(steps=2),
    "mapping": lambda: TeacherMapping("test_vit", size=32, components=8, images=6, epochs=1),
    "decoupling": lambda: Decoupling(epochs=1),
    "inversion": lambda: InversionSettings(epochs=1, first_epochs=1),
    "reconstruction": lambda: ReconstructionSettings(**martini_parts.QUICK),
}


def made(name, victim, folder, **options):
    """Make a stage of its arguments, which say by their names what they are.

    Args:
        name: One of `STAGES`.
        victim: Path of a suspect bundle.
        folder: Where a file of weights may be written.
        **options: Further arguments.
    """
    cls = STAGES[name]
    weights = folder / "weights.pth"
    torch.save(tiny.classifier().state_dict(), weights)
    parts = {
        **SHORT,
        "suspect": victim,
        "surrogate": tiny.classifier,
        "classifier": tiny.classifier,
        "decoder": martini_parts.autoencoder,
        "trigger": tiny.unet,
        "target": 2,
        "purified": lambda: Purified(tiny.unet(), tiny.classifier()),
        "unlearned": lambda: tiny.classifier(seed=1),
        "teacher": lambda: tiny.classifier(seed=1),
        "tuned": lambda: tiny.classifier(seed=1),
        "labeler": lambda: tiny.classifier(seed=1),
        "isolator": lambda: tiny.classifier(seed=1),
        "weights": str(weights),
        "masks": lambda: torch.rand(1, *tiny.classifier().features(torch.rand(1, 3, 16, 16)).shape[1:]),
    }
    if issubclass(cls, OwnAttack):  # an attacker tunes a net that has no attack yet
        parts["suspect"] = lambda: open_bundle(victim).build()
    if name == "StampedUnlearning":  # its mask is what an inversion gives
        parts["generator"] = lambda: MaskedPattern.holding(torch.ones(1, 16, 16), torch.ones(3, 16, 16))
    taken = {key: parts[key] for key in arguments_of(cls) if key in parts}
    return cls(**{**{key: part() if callable(part) else part for key, part in taken.items()}, **options})


TRIGGERS = {  # of stages that take one of a kind
    "InputAware": lambda: InputAware(tiny.unet(), tiny.unet(1)),
    "LabelConsistent": LabelConsistent,
    "Narcissus": UniversalNoise,
    "Grond": UniversalNoise,
    "TrojanNN": LearnedPatch,
    "TriggerFree": HandwrittenDigits,
    "ISSBA": lambda: Secret(SecretEncoder(4, 4)),
}


def attack(name):
    """The attack that a stage's data come with: one with weights where the stage changes its trigger."""
    if not issubclass(STAGES[name], OwnAttack):
        return tiny.attack()
    kind = next((kind for kind in TRIGGERS if name.startswith(kind)), None)
    if name == "LabelConsistentCrafting":  # changes the rows that are planted
        return Attack(LabelConsistent(), CleanLabel(), target=0, rate=0.1)
    return Attack(TRIGGERS[kind]() if kind else GeneratorTrigger(tiny.unet()), target=0, rate=None)


def data(name, selection, plan=None, **options):
    """Data for a stage."""
    given = {"suspicious": selection, "augment": CropFlip(2), "batch_size": 12}
    return tiny.data(plan or attack(name), **{**given, **options})


def epochs(stage):
    return stage.planned_epochs or 2


def trained(stage):
    """The parameters that a stage's optimizers train."""
    return [p for each in stage.trainer.optimizers for group in each.param_groups for p in group["params"]]


def trial_data(name, selection, bundle):
    """Data for the test of a stage's bundle: under the attack that the bundle carries, if the stage trained it."""
    return data(name, selection, str(bundle) if issubclass(STAGES[name], OwnAttack) else None)
