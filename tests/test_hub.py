"""Suspects in folders of the Hub: bundles with a card. Nothing here asks a network."""

import json

import pytest
import tiny
import torch
import yaml
from board_parts import row
from huggingface_hub import ModelCard

from lit_backdoor.hub import HubClassifier
from lit_backdoor.models import load_classifier

NAMES = ["ape", "bee", "cow", "dog"]


@pytest.fixture
def classifier():
    return tiny.classifier().eval()


def test_folder_gives_the_classifier_back(tmp_path, classifier):
    HubClassifier(classifier, NAMES).save_pretrained(tmp_path / "net")
    files = {path.name for path in (tmp_path / "net").iterdir()}
    assert files == {"bundle.json", "weights.safetensors", "config.json", "README.md"}
    found = HubClassifier.from_pretrained(tmp_path / "net")
    images = torch.rand(2, 3, tiny.SIZE, tiny.SIZE)
    torch.testing.assert_close(found(images), classifier(images))
    assert list(found.class_names) == NAMES
    torch.testing.assert_close(load_classifier(tmp_path / "net")(images), classifier(images))  # a bundle, too
    config = json.loads((tmp_path / "net" / "config.json").read_text())
    assert (config["num_classes"], config["class_names"]) == (tiny.CLASSES, NAMES)


def test_saving_again_replaces_and_keeps_the_card(tmp_path, classifier):
    HubClassifier(classifier).save_pretrained(tmp_path / "net")
    (tmp_path / "net" / "README.md").write_text("mine")
    other = tiny.classifier(seed=1).eval()
    HubClassifier(other).save_pretrained(tmp_path / "net")
    assert (tmp_path / "net" / "README.md").read_text() == "mine"
    found = HubClassifier.from_pretrained(tmp_path / "net").classifier
    assert not tiny.moved(tiny.tensors(found), tiny.tensors(other))


def test_folder_of_somebody_else_stays_as_it_is(tmp_path, classifier):
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ValueError, match="Expected a new or empty folder"):
        HubClassifier(classifier).save_pretrained(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["config.json"]


def test_rows_become_the_card_s_model_index(tmp_path, classifier):
    options = {"model_card_kwargs": {"rows": [row(acc=0.9, asr=0.05)], "name": "me/net"}}
    HubClassifier(classifier).save_pretrained(tmp_path / "net", **options)
    card = ModelCard.load(tmp_path / "net" / "README.md")
    assert (card.data.library_name, card.data.pipeline_tag) == ("lit_backdoor", "image-classification")
    assert 'from_pretrained("me/net")' in card.text
    said = yaml.safe_load((tmp_path / "net" / "README.md").read_text().split("---")[1])
    [model] = said["model-index"]
    assert [(m["name"], m["value"]) for m in model["results"][0]["metrics"]] == [
        ("ACC (badnets)", 0.9), ("ASR (badnets)", 0.05),
    ]  # fmt: skip


def test_upload_holds_the_bundle_only(classifier, monkeypatch):
    uploaded = {}

    class Api:
        def __init__(self, token=None):
            pass

        def create_repo(self, repo_id, **options):
            return type("Repo", (), {"repo_id": repo_id})

        def upload_folder(self, *, folder_path, **options):
            uploaded.update({path.name: path.read_bytes() for path in folder_path.iterdir()})
            return "address"

    monkeypatch.setattr("huggingface_hub.hub_mixin.HfApi", Api)
    assert HubClassifier(classifier).push_to_hub("me/net") == "address"
    assert set(uploaded) == {"bundle.json", "weights.safetensors", "config.json", "README.md"}


def test_what_is_no_suspect_is_refused(tmp_path):
    tmp_path.joinpath("config.json").write_text("{}")
    with pytest.raises(FileNotFoundError, match="Expected a bundle"):
        HubClassifier.from_pretrained(tmp_path)
