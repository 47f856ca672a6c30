import pytest
import tiny
import torch
from pgbd_parts import fast, lacking, run, targets

from lit_backdoor.defenses.pgbd import NTPGBD, Geometry


class Turns(tiny.pl.Callback):
    """Notes whose turn each epoch was, and its prototypes; vectors must be those of the turn."""

    def __init__(self):
        self.targets, self.prototypes = [], []

    def on_train_epoch_end(self, trainer, module):
        self.targets.append(int(module.leads[0, 0]))
        torch.testing.assert_close(module.vectors[0], module.prototypes[self.targets[-1]] - module.prototypes)
        self.prototypes.append(module.prototypes.clone())


def turns(stage, epochs, datamodule=None):
    noted = Turns()
    run(stage, epochs, datamodule, callbacks=[noted])
    return noted


def test_classes_take_turns_and_vectors_are_rebuilt_at_each():
    noted = turns(NTPGBD(tiny.classifier(), interval=2, optimizer=fast), 10)
    assert noted.targets == [0, 0, 1, 1, 2, 2, 3, 3, 0, 0]
    changed = [not torch.equal(one, two) for one, two in zip(noted.prototypes, noted.prototypes[1:], strict=False)]
    assert changed == [False, True] * 4 + [False]


def test_the_most_suspicious_candidates_alone_have_turns(tmp_path):
    found = targets(tmp_path / "t", [], statistic=[5.0, 1.0, 8.0, 2.0])
    assert turns(NTPGBD(tiny.classifier(), candidates=found, top=2), 3).targets == [1, 3, 1]


def test_report_on_other_classes_is_refused(tmp_path):
    with pytest.raises(ValueError, match="among 4 classes, got a report on 3"):
        run(NTPGBD(tiny.classifier(), candidates=targets(tmp_path / "t", [], statistic=[5.0, 1.0, 8.0])))


def test_class_without_root_images_has_no_turn():
    with pytest.warns(UserWarning, match=r"no image of classes \[1\]: they have no turn"):
        assert turns(NTPGBD(tiny.classifier()), 4, lacking(1)).targets == [0, 2, 3, 0]


@pytest.mark.parametrize(
    ("options", "message"),
    [({"interval": 0}, "at least 1, got 0 and 3"), ({"top": 0}, "at least 1, got 1 and 0"),
     ({"geometry": Geometry(smoothed="both")}, "change their target at every turn")],
)  # fmt: skip
def test_options_out_of_range_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        NTPGBD(tiny.classifier(), **options)
