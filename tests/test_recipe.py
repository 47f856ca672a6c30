import pytest
import torch
from torch import nn

from lit_backdoor.models import ForeignClassifier, Purified, TimmClassifier, UNet, wrap_classifier
from lit_backdoor.recipe import Recorded, arguments_of, load_factory, rebuild, rebuilding, recipe
from lit_backdoor.triggers import AllToAll, Attack, Blend, Patch


class Base(Recorded):
    def __init__(self, size=1, parts=()):
        self.size, self.parts = size, parts


class Child(Base):
    def __init__(self, width, *, names=("a", "b"), options=None):
        super().__init__(size=width * 2)
        self.names = names


class Silent(Base):
    """Has no __init__ of its own."""


class Open(Base):
    def __init__(self, depth=1, **options):
        super().__init__(**options)


class Both(Silent, Open):
    """What it takes besides its own goes to Open, not to Silent's constructor, which is Base's."""

    def __init__(self, edge=0, **options):
        super().__init__(**options)


def test_arguments_are_those_of_every_constructor_that_is_called():
    assert arguments_of(Both) == {"edge", "depth", "size", "parts"}
    assert arguments_of(Silent) == {"size", "parts"}
    assert arguments_of(lambda a, b=1: 0) == {"a", "b"}


def test_outermost_arguments_are_kept_with_defaults():
    assert recipe(Child(3))["init_args"] == {"width": 3, "names": ["a", "b"], "options": None}
    assert recipe(Silent(4)) == {"class_path": f"{__name__}.Silent", "init_args": {"size": 4, "parts": []}}


def test_nested_objects_are_described():
    described = recipe(Base(parts=[Silent(2), {"deep": Base(5)}]))
    first, second = described["init_args"]["parts"]
    assert first["init_args"]["size"] == 2
    assert second["deep"]["init_args"]["size"] == 5


@pytest.mark.parametrize(
    ("make", "path"),
    [
        (lambda: Base(size=object()), "'size' of Base is a object"),
        (lambda: Base(parts=[1, torch.ones(1)]), r"'parts\[1\]' of Base is a Tensor"),
        (lambda: Child(1, options={"net": nn.ReLU()}), "'options.net' of Child is a ReLU"),
    ],
)
def test_what_cannot_be_written_is_named(make, path):
    with pytest.raises(ValueError, match=path):
        recipe(make())


def test_net_object_without_recipe_is_refused_by_name():
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.LazyLinear(2))
    net(torch.zeros(1, 3, 8, 8))
    wrapped = wrap_classifier(net, split="0", num_classes=2, input_size=8, mean=(0,) * 3, std=(1,) * 3)
    with pytest.raises(ValueError, match="'net' of WrappedClassifier is a Sequential"):
        recipe(wrapped)


@pytest.mark.parametrize(
    "made",
    [
        lambda: TimmClassifier("resnet18", 4, 16, channels=4),
        lambda: UNet(base=4, downs=2, start="small", bound=0.5),
        lambda: Purified(UNet(base=4, downs=2), TimmClassifier("resnet18", 4, 16, channels=4)),
        lambda: Attack(Patch(size=3, place=(1, 1)), policy=AllToAll(), target=1, rate=0.2),
        lambda: Attack(Blend(), target=0, rate=0.1),
    ],
)
def test_rebuilt_objects_have_the_same_recipe(made):
    described = recipe(made())
    again = rebuild(described)
    assert type(again) is type(made())
    assert recipe(again) == described


HOSTILE = [
    "os.system",
    "builtins.eval",
    "torch.load",
    "torch.hub.load",
    "torch.nn.Linear",
    "timm.create_model",
    "subprocess.Popen",
    "lit_backdoor.bundle.shutil.rmtree",
    "lit_backdoor.bundle.save_bundle",
    "lit_backdoor.recipe.importlib.import_module",
    "lit_backdoor.cli.main",
    "lit_backdoor.stages.PoisonedTraining",
    "lit_backdoor_evil.Net",
    "lit_backdoor.models.TimmClassifierr",
    "lit_backdoor.nothing.Net",
    "lit_backdoor",
    "lit_backdoor.",
    "",
    "..os.system",
]


@pytest.mark.parametrize("name", HOSTILE)
def test_only_recorded_classes_of_the_package_are_built(name, tmp_path):
    mark = tmp_path / "mark"
    with pytest.raises(ValueError, match=r"allow-list|can be recorded|dotted name|Unknown name|could not be built"):
        rebuild({"class_path": name, "init_args": {"command": f"touch {mark}"}})
    assert not mark.exists()


@pytest.mark.parametrize("factory", ["os.system", "timm.create_model", "torch.hub.load", "torchvision.models.get_model",
                                     "torchvision.models.list_models", "torchvision.io.read_image"])  # fmt: skip
def test_hostile_factories_are_refused(factory):
    arguments = {"factory": factory, "factory_args": {}, "split": "x", "num_classes": 2, "input_size": 8}
    described = {
        "class_path": "lit_backdoor.models.foreign.ForeignClassifier",
        "init_args": {**arguments, "mean": [0, 0, 0], "std": [1, 1, 1]},
    }
    with pytest.raises(ValueError, match=r"allow-list|builds no classifier"):
        rebuild(described)
    assert not rebuilding()


def test_trust_admits_a_named_package_only():
    assert rebuild({"class_path": f"{__name__}.Silent", "init_args": {"size": 3}}, trust=(__name__,)).size == 3
    with pytest.raises(ValueError, match="allow-list"):
        rebuild({"class_path": f"{__name__}.Silent", "init_args": {}}, trust=(__name__[:-1],))
    with pytest.raises(ValueError, match="can be recorded"):  # trusted, and still no recorded class
        rebuild({"class_path": "torch.nn.Linear", "init_args": {}}, trust=("torch",))


def test_wrong_arguments_are_an_input_error():
    with pytest.raises(ValueError, match="could not be built with its recorded arguments"):
        rebuild({"class_path": "lit_backdoor.models.unet.UNet", "init_args": {"widht": 3}})


def test_factories_outside_a_bundle_need_no_list():
    assert load_factory("torch.nn.Linear") is nn.Linear
    with pytest.raises(ValueError, match="Did you mean 'Linear'"):
        load_factory("torch.nn.Linaer")
    with pytest.raises(ValueError, match="function or class"):
        load_factory("torch.nn.functional.__doc__")


def test_foreign_factory_of_torchvision_is_rebuilt_without_download():
    net = ForeignClassifier("torchvision.models.squeezenet1_1", {"num_classes": 3}, "features", 3, 32, (0.5,) * 3,
                            (0.5,) * 3)  # fmt: skip
    described = recipe(net)
    described["init_args"]["factory_args"]["weights"] = "DEFAULT"
    again = rebuild(described)
    assert again.num_classes == 3
