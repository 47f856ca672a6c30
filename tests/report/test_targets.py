import torch

from lit_backdoor.report.page import write_report
from lit_backdoor.triggers import MaskedPattern

BEFORE = {"acc": 0.934, "asr": 0.998, "ra": 0.002}


def left(folder, flagged, module=None, missing=()):
    statistic = torch.arange(16.0) + 1
    statistic[5] = 0.25
    statistic[[*missing]] = torch.inf
    tensors = {"statistic": statistic, "index": 3 - statistic, "flagged": torch.tensor(flagged, dtype=torch.long)}
    numbers = {"target_class": flagged[0] if flagged else None}
    folder.suspect("victim", BEFORE)
    folder.stage("detect", "targets", "lit_backdoor.defenses.tac.TACDetection", numbers,
                 {"model.suspect": "victim"}, tensors=tensors, module=module)  # fmt: skip
    folder.summary(BEFORE)
    return write_report(folder.write(), folder.data).read_text()


def test_classes_are_listed_the_smallest_first(empty_chain, data):
    text = left(empty_chain(data), [5])
    names = [folder_name(text, place) for place in range(12)]
    assert names[0] == data.class_names[5]
    assert names[1] == data.class_names[0]
    assert text.count('<tr class="flagged">') == 1
    assert "The detector flags 1 class." in text
    assert "4 more classes have larger numbers." in text


def test_class_without_a_trigger_has_no_number(empty_chain, data):
    text = left(empty_chain(data), [5], missing=[0, 1])
    table = text.partition('<table class="classes">')[2].partition("</table>")[0]
    assert "inf" not in table
    assert "2 of 16 classes have none" in text


def test_nothing_flagged_is_said(empty_chain, data):
    text = left(empty_chain(data), [])
    assert "The detector flags no class." in text
    assert '<tr class="flagged">' not in text


def test_gallery_shows_the_trigger_of_a_report(empty_chain, data):
    text = left(empty_chain(data), [5], MaskedPattern.holding(torch.ones(1, 32, 32), torch.zeros(3, 32, 32)))
    assert "what the inversion recovered" in text


def folder_name(text, place):
    return text.partition('<table class="classes">')[2].split('<th scope="row">')[place + 1].partition("<")[0]
