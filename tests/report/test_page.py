# ruff: noqa: RUF001  (typographic signs are meant)

import json
import re
import shutil
from html.parser import HTMLParser

import pytest
import torch

from lit_backdoor.models import Purified, TimmClassifier, UNet
from lit_backdoor.report import write_report
from lit_backdoor.triggers import AllToAll, GeneratorTrigger, OneToOne

VOID = {"meta", "img", "br", "link", "line", "circle"}
VIEWS = ["heatmaps", "logits", "vectors"]
BEFORE = {"acc": 0.934, "asr": 0.998, "ra": 0.002}


class Page(HTMLParser):
    """Checks that elements are closed in order, and collects what tests ask for."""

    def __init__(self, text):
        super().__init__()
        self.open, self.sections, self.images, self.charts, self.words = [], [], [], [], []
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        if tag not in VOID - {"line", "circle"}:
            self.open.append(tag)
        if tag == "section":
            self.sections.append(attributes["id"])
        if tag == "img":
            self.images.append(attributes | {"section": self.sections[-1]})
        if tag == "svg" and "aria-hidden" not in attributes:
            self.charts.append(attributes)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] != "style":
            self.words += data.split()

    @property
    def gallery(self):
        return [image for image in self.images if image["section"] == "gallery"]

    @property
    def text(self):
        return " ".join(self.words)


def page(folder, **more):
    text = write_report(folder.write(), folder.data, **more).read_text()
    return Page(text), text


def test_whole_chain_has_every_section(chain):
    shown, _ = page(chain)
    assert shown.sections == ["verdict", "gallery", *VIEWS, "training", "selection", "stages", "settings"]
    assert "The backdoor is gone: attack success fell from 99.8% to 1.3% , and accuracy" in shown.text
    assert len(shown.gallery) == 8 * 5
    assert "Corner(size=5)" in shown.text
    assert "lit-backdoor chain atclean_signs --seed 1" in shown.text


def test_class_whose_name_is_no_text_is_written_all_the_same(empty_chain, data, monkeypatch):
    folder = empty_chain(data)
    folder.suspect("victim", BEFORE)
    monkeypatch.setattr(type(data.source), "class_names", ("b\udcff", *data.class_names[1:]))
    assert "b&#56575;" in page(folder)[1]


def test_page_is_one_file_without_scripts_or_network(chain):
    shown, text = page(chain)
    without_pictures = re.sub(r"data:image/png;base64,[\w+/=]+", "", text)
    assert not re.search(r"https?:|//|<script|<link|@import|url\(", without_pictures)
    assert all(image["src"].startswith("data:image/png;base64,") and image["alt"] for image in shown.images)
    assert all(chart["role"] == "img" and chart["aria-label"] for chart in shown.charts)
    assert len(text) < 1_500_000


def test_equal_runs_give_equal_pages(chain, data, tmp_path_factory):
    first = write_report(chain.write(), data).read_bytes()
    elsewhere = tmp_path_factory.mktemp("elsewhere") / "run"
    shutil.copytree(chain.path, elsewhere)
    assert write_report(elsewhere, data).read_bytes() == first
    assert not list(chain.path.glob(".*.part"))


def test_text_is_escaped(chain, data):
    data.source.__class__ = type("Nasty", (type(data.source),), {"class_names": ("<script>&\"'",) * 16})
    chain.results["chain"] = "<img src=x>"
    chain.results["hardware"] = "<b>fast</b>"
    shown, text = page(chain, command="lit-backdoor chain '<i>'")
    assert "<script" not in text
    assert "<img src=x>" not in text
    assert "<b>fast" not in text
    assert "<i>'" not in text
    assert "<script>" in shown.text


def test_one_stage_without_history(empty_chain, data):
    folder = empty_chain(data)
    folder.suspect("victim", BEFORE)
    folder.summary(BEFORE)
    shown, _ = page(folder)
    assert shown.sections == ["verdict", "gallery", *VIEWS, "stages", "settings"]
    assert "The suspect carries a backdoor that works on 99.8% of the triggered images." in shown.text
    assert len(shown.gallery) == 8 * 3
    assert "DER" not in shown.text
    assert "DoF" not in shown.text


@pytest.mark.parametrize(("found", "text"), [(1, "Target class limit 50"), (None, "Target class none")])
def test_names_the_class_that_the_defense_found(empty_chain, data, found, text):
    folder = empty_chain(data)
    folder.suspect("victim", BEFORE)
    folder.suspect("clean", {**BEFORE, "target_class": found}, seed=1, inputs={"model.suspect": "victim"})
    folder.summary(BEFORE, BEFORE)
    shown, _ = page(folder)
    assert text in shown.text


def test_clean_model_has_dashes_not_zeros(empty_chain, signs):
    folder = empty_chain(signs())
    numbers = {"acc": 0.93, "asr": None, "ra": None}
    folder.suspect("victim", numbers)
    folder.suspect("clean", {**numbers, "acc": 0.91}, seed=1, inputs={"model.suspect": "victim"})
    folder.summary(numbers, {**numbers, "acc": 0.91})
    shown, _ = page(folder)
    assert "No attack here: the defense took a clean model’s accuracy from 93.0% to 91.0%" in shown.text
    assert "ASR triggered test images that get the attacker’s label; lower is better – – –" in shown.text
    assert "0.0%" not in shown.text.replace("93.0%", "").replace("91.0%", "").replace("10.0%", "")
    assert len(shown.gallery) == 8


def test_control_stands_beside(chain):
    control = {"acc": 0.941, "asr": 0.973, "ra": 0.027}
    chain.suspect("control", control, "lit_backdoor.stages.FineTune", inputs={"model.suspect": "victim"})
    shown, _ = page(chain)
    assert "control is plain fine-tuning of the same suspect." in shown.text
    assert "97.3%" in shown.text
    assert "shows nothing" not in shown.text


def test_only_a_run_on_the_signs_is_a_demo(chain):
    chain.results["chain"] = "demo"
    assert "<title>demo on SyntheticSigns, seed 1 · lit_backdoor</title>" in page(chain)[1]
    chain.results["data"]["source"] = "lit_backdoor.data.ImageFolder"
    assert "<title>ImageFolder, seed 1 · lit_backdoor</title>" in page(chain)[1]


def test_curves_say_that_they_are_of_a_sample(chain):
    assert "on a sample of the test images" in page(chain)[0].text


def test_control_that_does_as_well_is_said(chain):
    control = {"acc": 0.92, "asr": 0.03, "ra": 0.9}
    chain.suspect("control", control, "lit_backdoor.stages.FineTune", inputs={"model.suspect": "victim"})
    shown, _ = page(chain)
    assert "this run shows nothing about the defense" in shown.text


def test_bundles_that_are_gone_leave_out_their_pictures(chain):
    for name in ("select", "generate", "clean"):
        shutil.rmtree(chain.path / name)
    shown, _ = page(chain)
    assert shown.sections == ["verdict", "gallery", *VIEWS, "training", "stages", "settings"]
    assert len(shown.gallery) == 8 * 3


def test_damaged_bundle_is_named(chain):
    chain.write()
    (chain.path / "clean" / "weights.safetensors").write_bytes(b"")
    with pytest.raises(ValueError, match="clean is damaged"):
        write_report(chain.path, chain.data)


def test_no_results(tmp_path, data):
    with pytest.raises(FileNotFoundError):
        write_report(tmp_path, data)


@pytest.mark.parametrize("policy", [AllToAll(), OneToOne(5)])
def test_other_label_policies(empty_chain, signs, corner_attack, policy):
    folder = empty_chain(signs(attack=corner_attack(policy=policy, rate=0.05)))
    folder.suspect("victim", BEFORE)
    folder.summary(BEFORE)
    shown, _ = page(folder)
    few = isinstance(policy, OneToOne)
    assert f"of {1 if few else 8} {'class' if few else 'classes'}" in shown.text
    assert len(shown.gallery) == (3 if few else 8) * 3


def test_large_pictures_are_shrunk(empty_chain, signs, corner_attack):
    folder = empty_chain(signs(4, 224, 10, corner_attack()))
    folder.suspect("victim", BEFORE)
    folder.generator()
    folder.summary(BEFORE)
    shown, text = page(folder)
    assert "Pictures are shrunk to 96 px." in shown.text
    assert len(text) < 1_500_000


def test_composed_suspect_is_shown(chain):
    torch.manual_seed(0)
    purified = Purified(UNet(base=8, downs=1), TimmClassifier(**chain.net))
    numbers = {"acc": 0.9, "asr": 0.2, "ra": 0.7}
    path = "lit_backdoor.stages.PurificationTraining"
    chain.stage("purify", "suspect", path, numbers, {"model.suspect": "victim"}, module=purified)
    chain.summary(BEFORE, numbers)
    shown, _ = page(chain)
    assert "The backdoor is weaker, not gone" in shown.text
    assert "Purified(" in shown.text


def test_recovered_trigger_is_shown(empty_chain, signs, corner_attack):
    folder = empty_chain(signs(attack=corner_attack()))
    folder.suspect("victim", BEFORE)
    recovered = GeneratorTrigger(UNet(base=8, downs=2, start="random", bound=0.2))
    path = "lit_backdoor.defenses.btidbf.BTIDBFInversion"
    folder.stage("invert", "trigger", path, {"target_class": 0}, {"model.suspect": "victim"}, module=recovered)
    folder.summary(BEFORE)
    shown, _ = page(folder)
    assert "What the trigger does, and what the inversion recovered" in shown.text
    assert "recovered − clean" in shown.text
    assert len(shown.gallery) == 8 * 5


def test_results_stay_untouched(chain):
    before = chain.write().joinpath("results.json").read_bytes()
    write_report(chain.path, chain.data)
    assert chain.path.joinpath("results.json").read_bytes() == before
    assert json.loads(before)["format"] == 1
