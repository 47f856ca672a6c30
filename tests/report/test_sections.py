# ruff: noqa: RUF001  (typographic signs are meant)

import base64
import io
import re

import numpy as np
import pytest
import torch
from PIL import Image

from lit_backdoor.page import words
from lit_backdoor.page.svg import nice_ticks, tag
from lit_backdoor.report.pictures import amplified, data_uri, gain_for
from lit_backdoor.report.rows import pick
from lit_backdoor.report.run import Run
from lit_backdoor.report.sections.history import history
from lit_backdoor.report.sections.scores import scores
from lit_backdoor.report.sections.verdict import sentence
from lit_backdoor.triggers import Role


def run(folder):
    return Run(folder.write(), folder.results, folder.data, "")


def text(html):
    return " ".join(re.sub(r"<[^>]+>", " ", str(html)).split())


@pytest.mark.parametrize(
    ("before", "after", "start", "tone"),
    [
        (None, None, "This chain compares no classifiers", "plain"),
        ({"acc": 0.9, "asr": None}, None, "No attack here: a clean model", "plain"),
        ({"acc": 0.9, "asr": 0.3}, {"acc": 0.9, "asr": 0.0}, "The attack did not take hold", "plain"),
        ({"acc": 0.9, "asr": 0.99}, None, "The suspect carries a backdoor", "bad"),
        ({"acc": 0.9, "asr": 0.99}, {"acc": 0.89, "asr": 0.05}, "The backdoor is gone", "good"),
        ({"acc": 0.9, "asr": 0.99}, {"acc": 0.5, "asr": 0.05}, "The backdoor is gone", "plain"),
        (
            {"acc": 0.9, "acc_target": 0.9, "asr": 0.99},
            {"acc": 0.85, "acc_target": 0.1, "asr": 0.0},
            "Attack success fell from <b>99.0%</b> to <b>0.0%</b>, but so did accuracy on the attacker’s class",
            "bad",
        ),
        (
            {"acc": 0.9, "acc_target": 0.95, "asr": 0.99},
            {"acc": 0.89, "acc_target": 0.84, "asr": 0.05},
            "The backdoor is gone: attack success fell from <b>99.0%</b> to <b>5.0%</b>, at the price of the attacker’s "
            "class: its accuracy fell from <b>95.0%</b> to <b>84.0%</b>.",
            "plain",
        ),
        (
            {"acc": 0.9, "acc_target": 0.95, "asr": 0.99},
            {"acc": 0.8, "acc_target": 0.84, "asr": 0.3},
            "The backdoor is weaker, not gone: attack success fell from <b>99.0%</b> to <b>30.0%</b>, at the price of "
            "accuracy: from <b>90.0%</b> to <b>80.0%</b>, on the attacker’s class from <b>95.0%</b> to <b>84.0%</b>.",
            "plain",
        ),
        ({"acc": 0.9, "asr": 0.99}, {"acc": 0.89, "asr": 0.3}, "The backdoor is weaker, not gone", "plain"),
        ({"acc": 0.9, "asr": 0.99}, {"acc": 0.89, "asr": 0.9}, "The backdoor still works", "bad"),
    ],
)
def test_sentence(before, after, start, tone):
    said, found = sentence(before, after)
    assert str(said).startswith(start)
    assert found == tone
    assert str(said).count(".") - len(re.findall(r"\d\.\d", said)) == 1  # one sentence


def test_suspect_that_went_on_unchanged_is_said():
    before = {"acc": 0.9, "asr": 0.99}
    said, tone = sentence(before, before, unchanged=True)
    assert str(said).startswith("No class was flagged, so the suspect went on unchanged")
    assert tone == "bad"
    said, tone = sentence({"acc": 0.9, "asr": None}, {"acc": 0.9, "asr": None}, unchanged=True)
    assert str(said).startswith("No attack here, and no class was flagged")


def test_costly_defense_is_said():
    said, _ = sentence({"acc": 0.9, "asr": 0.99}, {"acc": 0.7, "asr": 0.01})
    assert "at the price of accuracy: from 90.0% to 70.0%" in text(said)


def test_numbers():
    assert words.percent(None) == words.number(None) == words.points(None, 0.5) == words.points(0.5, None) == "–"
    assert words.percent(0.0) == "0.0%"
    assert words.points(0.9, 0.8765) == "−2.4"  # 90.0 to 87.6 as written
    assert words.points(0.5, 0.5) == "±0.0"
    assert words.number(0.93, "dof") == "0.930"
    assert words.number(0.93, "acc") == "93.0%"
    assert words.number([1, 2]) == "1, 2"
    assert words.number(list(range(9))) == "9 values"
    assert words.number({}) == "0 values"
    assert [words.duration(s) for s in (3.21, 59.9, 61, 7260)] == ["3.2 s", "1 min 0 s", "1 min 1 s", "2 h 1 min"]


def test_call_names_nested_objects():
    described = {
        "class_path": "a.b.Out",
        "init_args": {"net": {"class_path": "c.In", "init_args": {"k": 0.5}}, "n": None},
    }
    assert words.call(described) == "Out(net=In(k=0.5))"


def test_pick_spreads_over_classes_without_looking():
    labels = torch.arange(200) % 50
    allowed = labels != 0
    rows = pick(labels, allowed)
    assert labels[rows].tolist() == [1, 8, 15, 22, 28, 35, 42, 49]
    assert (rows < 50).all()  # each the first of its class
    assert len(pick(labels, labels == 7)) == 4
    assert len(pick(labels, labels < 0)) == 0


def test_picture_is_a_png_of_the_same_pixels():
    image = torch.rand(3, 20, 30, generator=torch.Generator().manual_seed(0))
    uri = data_uri(image)
    pixels = np.asarray(Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2]))))
    np.testing.assert_array_equal(pixels, (image * 255).round().byte().permute(1, 2, 0).numpy())


def test_large_picture_is_shrunk_in_proportion():
    uri = data_uri(torch.zeros(3, 192, 96))
    assert Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2]))).size == (48, 96)


def test_gain_keeps_differences_in_range():
    assert gain_for(torch.full((1, 3, 8, 8), 0.1)) == 8
    assert gain_for(torch.zeros(1, 3, 8, 8)) == 1
    assert amplified(torch.tensor([0.0, 0.1, -1.0]), 4).tolist() == pytest.approx([0.5, 0.7, 0.0])


def test_training_starts_at_the_suspect_it_changes(chain):
    html = str(history(run(chain)).html)
    charts = re.findall(r"<svg.*?</svg>", html, re.S)
    assert len(charts) == 2 + 3  # shares of two suspects, losses of three stages
    assert "hollow" not in charts[0]
    assert charts[1].count("hollow") == 3
    assert "Stage clean, test numbers by epoch: ACC ends at 92.7%; ASR ends at 1.4%" in html


def test_history_with_one_measured_epoch(empty_chain, data):
    folder = empty_chain(data)
    folder.suspect("victim", {"acc": 0.5}, history=[{"epoch": 0, "train/loss": 1.0}, {"epoch": 1, "val/acc": 0.5}])
    html = str(history(run(folder)).html)
    assert html.count("<svg") == 1
    assert "ACC" in html
    assert "ASR" not in html


def test_no_history(empty_chain, data):
    folder = empty_chain(data)
    folder.suspect("victim", {"acc": 0.5})
    assert history(run(folder)) is None


def test_selection_counts_rows_by_role(chain, data):
    said = text(scores(run(chain)).html)
    role = data.get_view("questioned").role
    poisoned = int((role == Role.POISON).sum())
    assert f"Poisoned {poisoned}, of them" in said
    assert f"Clean {len(role) - poisoned}, of them" in said
    assert "the 6 lowest are selected" in said
    assert "loss of the label as given (logarithmic)" in said


def test_oracle_has_no_threshold(empty_chain, data):
    folder = empty_chain(data)
    folder.selection(
        losses=torch.linspace(0, 1, len(data.get_view("questioned"))), chosen=[0, 50], cls="OracleSelection"
    )
    section = scores(run(folder))
    assert section.title == "Score of poisoned and clean samples"
    assert "no threshold is drawn" in text(section.html)
    assert 'class="threshold"' not in section.html
    assert "logarithmic" not in section.html


@pytest.mark.parametrize("value", [0.0, 0.7])
def test_equal_scores_are_drawn(empty_chain, data, value):
    folder = empty_chain(data)
    folder.selection(losses=torch.full((len(data.get_view("questioned")),), value))
    assert "<svg" in scores(run(folder)).html


def test_selection_without_scores_is_left_out(empty_chain, data):
    folder = empty_chain(data)
    folder.stage("select", "selection", "x.Own", {}, tensors={"indices": torch.tensor([1])})
    assert scores(run(folder)) is None


@pytest.mark.parametrize(("low", "high"), [(0, 1), (0, 0), (-0.3, 2.7), (0, 0.004), (5, 1234)])
def test_ticks_cover_the_range(low, high):
    ticks = nice_ticks(low, high)
    assert ticks[0] <= low
    assert ticks[-1] >= high
    assert 2 <= len(ticks) <= 8
    np.testing.assert_allclose(np.diff(ticks), ticks[1] - ticks[0])


def test_tag_escapes():
    assert tag("text", "<a>", class_='"', x=1.0) == '<text class="&#34;" x="1">&lt;a&gt;</text>'
