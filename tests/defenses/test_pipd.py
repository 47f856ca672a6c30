"""PIPD: its isolation, data on which it finds the poisoned rows and data on which it cannot."""

import pruning_parts as parts
import pytest
import scratch_parts
import tiny
import torch

from lit_backdoor.bundle import open_bundle
from lit_backdoor.defenses.pipd import ProgressiveIsolation

TRUE = torch.arange(400) % 10 == 0  # poisoned rows


def rows(strength):
    """Losses that are lower for poisoned rows, and the peaks of two layers, where they excite a channel each."""
    generator = torch.Generator().manual_seed(0)
    losses = torch.rand(400, generator=generator) - 0.5 * TRUE.float()
    peaks = [torch.randn(400, count, generator=generator) for count in (16, 32)]
    for found, channel in zip(peaks, (3, 20), strict=True):
        found[TRUE, channel] += strength
    return losses, peaks


def test_rows_that_excite_the_same_channels_as_the_first_ones_are_isolated():
    isolated, sums = ProgressiveIsolation("a", "b").isolate(*rows(8.0))
    assert torch.equal(isolated, TRUE)
    assert sums[TRUE].min() > sums[~TRUE].max()


def test_poisoned_rows_that_excite_no_channel_are_not_found():
    isolated, _ = ProgressiveIsolation("a", "b").isolate(*rows(0.0))
    assert (isolated & TRUE).sum() < 0.4 * isolated.sum()


def test_selection_holds_the_poisoned_rows_of_a_toy(tmp_path):
    stage = ProgressiveIsolation(parts.backdoored(), parts.backdoored(), share=0.05)
    data = scratch_parts.questioned(parts.redden)
    tiny.trainer().predict(stage, datamodule=data, return_predictions=False)
    stage.export(tmp_path / "rows")
    found = open_bundle(tmp_path / "rows", "selection").tensors()
    assert sorted(found["indices"].tolist()) == scratch_parts.POISONED
    assert found["scores"].shape == found["rows"].shape == (64,)
    assert found["scores"].argmin() in found["indices"]


@pytest.mark.parametrize("options", [{"share": 0.0}, {"clean_share": 1.0}, {"channel_share": 0.0}, {"rounds": 0}])
def test_numbers_out_of_range_are_refused(options):
    with pytest.raises(ValueError, match="Expected "):
        ProgressiveIsolation("path", "path", **options)
