"""Large-model mapping, with tiny teachers of random weights."""

import pytest
import timm
import tiny
import torch
from pgbd_parts import fast, run
from sklearn.decomposition import PCA

from lit_backdoor.defenses.pgbd import Geometry, MappedPGBD, TeacherMapping
from lit_backdoor.defenses.pgbd.mapping import LinearMaps

pytestmark = pytest.mark.filterwarnings("ignore:The teacher .* has random weights")
TEACHER = "test_vit"  # timm's own net for tests: 64 channels, patches of 16 pixels
SHAPE = torch.Size((32, 2, 2))  # of the tiny suspect's last convolution


def mapping(**options):
    return TeacherMapping(TEACHER, **{"size": 32, "components": 8, "images": 6, "epochs": 2, **options})


def batches(count=10):
    images = torch.rand(count, 3, tiny.SIZE, tiny.SIZE, generator=torch.Generator().manual_seed(0))
    return [{"image": images, "valid": torch.arange(count) < count - 2}]


def test_teacher_gives_principal_components_of_its_maps():
    every = mapping(components=None).teach(batches(), SHAPE)
    few = mapping().teach(batches(), SHAPE)
    assert every.shape == (8, 64, 2, 2)  # without the rows that only pad
    pixels = every.permute(0, 2, 3, 1).reshape(-1, 64).numpy()
    expected = PCA(8, random_state=0).fit_transform(pixels)
    torch.testing.assert_close(few.permute(0, 2, 3, 1).reshape(-1, 8), torch.from_numpy(expected), rtol=1e-3, atol=1e-4)


def test_teacher_is_read_from_a_local_file(tmp_path):
    torch.manual_seed(4)
    net = timm.create_model(TEACHER, num_classes=10)  # its head is left out
    torch.save({"state_dict": net.state_dict()}, tmp_path / "teacher.pt")
    found = mapping(checkpoint=str(tmp_path / "teacher.pt"), components=None, size=None)
    images = torch.rand(3, 3, 160, 160)
    batch = {"image": images, "valid": torch.ones(3, dtype=torch.bool)}
    mean, std = (torch.tensor(net.default_cfg[key]).view(-1, 1, 1) for key in ("mean", "std"))
    with torch.no_grad():
        tokens = net.eval().forward_features((images - mean) / std)[:, net.num_prefix_tokens :]
    maps = found.teach([batch], torch.Size((5, 10, 10)))
    torch.testing.assert_close(maps.flatten(2).mT, tokens, rtol=1e-4, atol=1e-5)
    torch.save(timm.create_model("test_resnet").state_dict(), tmp_path / "other.pt")
    with pytest.raises(ValueError, match=r"do not fit the teacher: \d+ missing"):
        mapping(checkpoint=str(tmp_path / "other.pt")).teach(batches(), SHAPE)
    deeper = {**net.state_dict(), "blocks.9.norm1.weight": torch.ones(64)}
    torch.save(deeper, tmp_path / "deeper.pt")
    with pytest.raises(ValueError, match=r"1 missing, too many or of another shape, such as 'blocks.9.norm1.weight'"):
        mapping(checkpoint=str(tmp_path / "deeper.pt")).teach(batches(), SHAPE)


def test_maps_learn_to_encode_and_come_back():
    generator = torch.Generator().manual_seed(0)
    teacher = torch.randn(12, 4, 2, 2, generator=generator)
    student = torch.nn.functional.conv2d(teacher, torch.randn(6, 4, 1, 1, generator=generator))
    labels = torch.arange(12) % 3

    def loss(epochs):
        return mapping(images=12, epochs=epochs, lr=1e-2).train(teacher, student, labels).loss(teacher, student)

    assert loss(60) < 0.3 * loss(1)


def test_maps_are_a_function_of_the_seed():
    rows = torch.randn(6, 4, 2, 2), torch.randn(6, 5, 2, 2), torch.arange(6)
    one, same, other = (tiny.tensors(mapping().train(*rows, seed=seed)) for seed in (1, 1, 2))
    assert not tiny.moved(one, same)
    assert len(tiny.moved(one, other)) == 4


def test_differences_pass_without_biases():
    maps = LinearMaps(5, 4)
    one, two = torch.randn(2, 3, 5, 2, 2)
    expected = maps.encode(maps.decode(one)) - maps.encode(maps.decode(two))
    torch.testing.assert_close(maps.through(one - two), expected)
    assert maps.through(torch.zeros(1, 5, 2, 2)).eq(0).all()


def test_mapping_follows_64_bits():
    generator = torch.Generator().manual_seed(0)
    double = [{**batch, "image": batch["image"].double()} for batch in batches()]
    teacher, student = mapping().teach(double, SHAPE), torch.randn(8, 5, 2, 2, generator=generator).double()
    maps = mapping().train(teacher, student, torch.arange(8))
    assert teacher.dtype == maps.through(student).dtype == torch.float64
    torch.testing.assert_close(teacher.float(), mapping().teach(batches(), SHAPE), rtol=1e-3, atol=1e-4)


def test_stage_asks_the_teacher_once_and_maps_at_every_rebuilding(monkeypatch):
    asked, trained = [], []
    teach, train = TeacherMapping.teach, TeacherMapping.train
    monkeypatch.setattr(TeacherMapping, "teach", lambda *args: asked.append(1) or teach(*args))
    monkeypatch.setattr(TeacherMapping, "train", lambda *args: trained.append(train(*args)) or trained[-1])
    layer = "layer2.1.conv2"  # 8x8 maps
    geometry = Geometry(layer=layer, update=1, alpha=[1.0])
    stage = run(MappedPGBD(tiny.classifier(), 1, geometry=geometry, mapping=mapping(size=128), optimizer=fast))
    assert (len(asked), len(trained)) == (1, 2)
    plain = (stage.prototypes[1] - stage.prototypes).view(-1, *stage.space.shape)
    torch.testing.assert_close(stage.vectors[0], trained[-1].through(plain).flatten(1))
    assert stage.vectors[0, 1].eq(0).all()


def test_teacher_whose_maps_do_not_fit_is_refused_with_a_size_that_does():
    with pytest.raises(ValueError, match=r"maps are 2x2.*got 4x4 from 'test_vit' for images of 64 pixels.*perhaps 32"):
        mapping(size=64).teach(batches(), SHAPE)


def test_suspect_without_maps_is_refused():
    with pytest.raises(ValueError, match=r"that are maps \[channels, height, width\], got \(32,\)"):
        mapping().teach(batches(), torch.Size((32,)))


def test_unknown_teacher_and_bad_numbers_are_refused():
    with pytest.raises(ValueError, match="Unknown teacher 'test_vitt'. Did you mean 'test_vit"):
        TeacherMapping("test_vitt")
    with pytest.raises(ValueError, match="mapping.images of at least 1, got 0"):
        mapping(images=0)


def test_random_teacher_is_warned_of():
    with pytest.warns(UserWarning, match="has random weights: give mapping.checkpoint"):
        mapping()
