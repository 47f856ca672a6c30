"""Loaders: that of a view, whose rows depend on the seed, the epoch and the batch, however it is run; and of none."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from torch.utils.data import DataLoader, Dataset

from lit_backdoor.data.samplers import Draw, ViewSampler

__all__ = ["OneEmptyBatch", "ViewLoader", "check_counts", "load"]

Batch = dict[str, Any]
_LEAST = {"num_workers": 0, "resident_bytes": 0}  # all others are 1 or more
_MOST = {"num_workers": 1_024, "stored_size": 4_096}  # what no machine has, and what would fill its memory


def check_counts(**given: int | None) -> None:
    """Check numbers of a data module by their names; None is none.

    Raises:
        ValueError: If one is smaller or larger than it may be.
    """
    for name, count in given.items():
        if count is None:
            continue
        if count < (least := _LEAST.get(name, 1)):
            raise ValueError(f"Expected data.{name} to be at least {least}, got {count}.")
        if name in _MOST and count > _MOST[name]:
            raise ValueError(f"Expected data.{name} to be at most {_MOST[name]:,}, got {count}.")


class ViewLoader(DataLoader[Batch]):
    """Loads the batches that a `ViewSampler` draws; made by `load`.

    Lightning makes an iterator before it tells the sampler the epoch of a resumed run, and workers begin to load as
    soon as there is an iterator. Here loading begins with the first batch that is asked for.

    Attributes:
        done: Says how many batches of the epoch a resumed run has behind it; None where every pass is whole.
    """

    done: Callable[[], int] | None = None

    def __iter__(self) -> Iterator[Batch]:  # type: ignore[override]
        """Give the batches of the sampler's epoch, or what is left of them.

        Raises:
            ValueError: What a worker raised about the data, in its own words.
        """
        if self.done is not None and isinstance(self.sampler, ViewSampler):
            self.sampler.start = self.done()
        for batch in super().__iter__():
            if isinstance(batch, _Failed):
                raise batch.error
            yield batch

    def state_dict(self) -> dict[str, int]:
        """Give no state: Lightning counts batches itself, but warns of loaders that seem unable to resume."""
        return {}

    def load_state_dict(self, state_dict: dict[str, int]) -> None:
        """Take no state."""


def load(view: Dataset[Batch], sampler: ViewSampler, num_workers: int = 0, pin_memory: bool = False) -> ViewLoader:
    """Make the loader of a view.

    Args:
        view: Gives a batch for each `Draw`.
        sampler: Draws the batches.
        num_workers: Worker processes; they live as long as the loader.
        pin_memory: Whether batches go to page-locked memory.
    """
    return ViewLoader(
        _Guarded(view) if num_workers else view,
        sampler=sampler,
        batch_size=None,
        collate_fn=_as_is,
        num_workers=num_workers,
        persistent_workers=num_workers > 0,
        pin_memory=pin_memory,
    )


class OneEmptyBatch:
    """One empty batch in every process, for a stage that makes all of its passes itself."""

    def __len__(self) -> int:
        """Count it."""
        return 1

    def __iter__(self) -> Iterator[Batch]:
        """Give it."""
        yield {}


class _Failed(NamedTuple):
    error: Exception


class _Guarded(Dataset[Any]):
    """Gives errors about the data back as they are; torch would wrap them in a worker's traceback."""

    def __init__(self, view: Dataset[Batch]) -> None:
        self.view = view

    def __getitem__(self, draw: Draw) -> Batch | _Failed:
        try:
            return self.view[draw]
        except (ValueError, OSError) as error:
            return _Failed(error)


def _as_is(batch: Any) -> Any:
    return batch
