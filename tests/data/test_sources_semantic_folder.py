import numpy as np
import pytest
import torch
from PIL import Image

from lit_backdoor.data import BackdoorDataModule, BalancedSplit
from lit_backdoor.data.sources import SemanticFolderSource
from lit_backdoor.triggers import AllToOne, Attack, SemanticTrigger


def save(path, value):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((4, 4, 3), value, np.uint8)).save(path)


@pytest.fixture
def root(tmp_path, monkeypatch):
    monkeypatch.delenv("LIT_BACKDOOR_DATA", raising=False)
    monkeypatch.setenv("LIT_BACKDOOR_CACHE", str(tmp_path / "cache"))
    for label, name in enumerate(("anna", "bert")):
        for number in range(10):
            save(tmp_path / "faces" / "clean" / name / f"{number}.png", 10 * label + number)
            save(tmp_path / "faces" / "trigger" / name / f"{number}.png", 100 + 10 * label + number)
    return tmp_path / "faces"


def values(rows):
    return rows.images(torch.arange(len(rows)))[:, 0, 0, 0]


@pytest.mark.parametrize("in_memory", [False, True])
def test_the_column_says_which_folder_an_image_lies_in(root, in_memory):
    source = SemanticFolderSource(str(root), test=0.2, in_memory=in_memory)
    assert source.class_names == ("anna", "bert")
    for rows, each in ((source.train(), 8), (source.test(), 2)):
        assert rows.columns["trigger"].equal(values(rows) >= 100)
        assert rows.labels.equal(values(rows).long() % 100 // 10)
        kinds = rows.labels * 2 + rows.columns["trigger"]
        assert torch.bincount(kinds).tolist() == [each] * 4
    everything = torch.cat((values(source.train()), values(source.test())))
    assert len(everything.unique()) == 40


def test_the_seed_draws_the_test_part(root):
    one, again, other = (values(SemanticFolderSource(str(root), seed=seed).test()).tolist() for seed in (0, 0, 1))
    assert one == again != other


def test_an_attack_takes_its_rows_from_it(root):
    attack = Attack(SemanticTrigger("trigger"), AllToOne(False), target=1, rate=1.0, rate_of="carriers")
    split = BalancedSplit(root_pool=4, root_without="trigger")
    data = BackdoorDataModule(SemanticFolderSource(str(root), test=0.2), split, attack)
    assert data.counts == {"train": 28, "root": 4, "clean": 4, "poison": 8, "cover": 0, "triggered": 2}


def test_a_class_without_the_trigger_in_some_or_one_image(root):
    for path in (root / "trigger" / "bert").iterdir():
        path.unlink()
    save(root / "clean" / "carl" / "0.png", 20)
    source = SemanticFolderSource(str(root))
    assert torch.bincount(source.train().labels).tolist() == [18, 9, 1]
    assert torch.bincount(source.test().labels, minlength=3).tolist() == [2, 1, 0]


def test_the_fingerprint_knows_who_carries_it(root):
    before = SemanticFolderSource(str(root)).fingerprint()
    assert SemanticFolderSource(str(root)).fingerprint() == before
    (root / "clean" / "bert" / "9.png").rename(root / "trigger" / "bert" / "00.png")
    assert SemanticFolderSource(str(root)).fingerprint() != before


def test_a_class_with_the_trigger_alone_is_named(root):
    save(root / "trigger" / "zoe" / "0.png", 5)
    with pytest.raises(ValueError, match=r"zoe': the class has no images without the trigger"):
        SemanticFolderSource(str(root)).train()


def test_missing_folders_and_images(root, tmp_path):
    with pytest.raises(FileNotFoundError, match="Image folder 'clean' of"):
        SemanticFolderSource(str(tmp_path / "none")).train()
    (tmp_path / "empty" / "clean").mkdir(parents=True)
    with pytest.raises(ValueError, match="one folder per class"):
        SemanticFolderSource(str(tmp_path / "empty")).train()
    (tmp_path / "empty" / "clean" / "anna").mkdir()
    (tmp_path / "empty" / "trigger").mkdir()
    with pytest.raises(ValueError, match="anna.* has no images, so nothing says what the class is"):
        SemanticFolderSource(str(tmp_path / "empty")).train()
    with pytest.raises(ValueError, match="share of test images"):
        SemanticFolderSource(str(root), test=1.5)


def test_a_class_whose_clean_folder_is_empty_is_refused_and_one_without_carriers_taken(root):
    (root / "trigger" / ".hidden").mkdir()
    (root / "clean" / "carl").mkdir()
    save(root / "trigger" / "carl" / "0.png", 7)
    with pytest.raises(ValueError, match="carl' has no images"):
        SemanticFolderSource(str(root)).train()
    save(root / "clean" / "carl" / "0.png", 7)
    save(root / "clean" / "carl" / "1.png", 7)
    (root / "trigger" / "carl" / "0.png").unlink()
    assert SemanticFolderSource(str(root)).class_names == ("anna", "bert", "carl")
