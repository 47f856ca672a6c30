"""Nets compiled by ``torch.compile`` for a run, for GPUs that would wait for Python."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import lightning.pytorch as pl

from lit_backdoor.errors import one_of

__all__ = ["CompiledNets"]

MODES = ("default", "reduce-overhead", "max-autotune", "max-autotune-no-cudagraphs")


class CompiledNets(pl.Callback):
    """Compiles the nets of any module in place at the start of a fit, each for its ``forward``.

    Classes and keys of the nets stay, so checkpoints and bundles are those of a run without it. A net that a stage cuts
    in two (``features`` and ``head``) or taps runs as it is written there. Numbers differ from those of an uncompiled
    run by rounding. Give it to the Trainer:

    ``--trainer.callbacks+=lit_backdoor.stages.CompiledNets``

    Args:
        backend: Of ``torch.compile``: its name, or a function.
        mode: Of ``torch.compile``; ``inductor`` alone has modes.
        dynamic: Whether shapes may change without a new compilation; None lets torch find out.

    Raises:
        ValueError: If the mode is unknown.
    """

    def __init__(
        self, backend: str | Callable[..., Any] = "inductor", mode: str = "default", dynamic: bool | None = None
    ) -> None:
        self.backend = backend
        self.mode = one_of("mode", mode, MODES)
        self.dynamic = dynamic

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Compile; torch does the work at the first step."""
        options = {"mode": self.mode} if self.backend == "inductor" else {}
        for net in pl_module.children():
            if any(True for _ in net.parameters()):
                net.compile(backend=self.backend, dynamic=self.dynamic, **options)
