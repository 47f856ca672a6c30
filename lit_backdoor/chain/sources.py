"""The images of a chain, read once: stages that describe the same source share one, fingerprint included."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from lit_backdoor.chain.keys import sees_root
from lit_backdoor.chain.testing import build, build_data
from lit_backdoor.data import BackdoorDataModule
from lit_backdoor.data.sources import Source

__all__ = ["Sources"]


class Sources:
    """Sources by their descriptions, for as long as a chain runs."""

    def __init__(self) -> None:
        self._opened: dict[str, Source] = {}
        self._fingerprints: dict[str, str] = {}

    def data(self, described: Mapping[str, Any]) -> BackdoorDataModule:
        """Build a data module from its description, on shared sources."""
        return self.lend(build_data(described), described)

    def lend(self, datamodule: BackdoorDataModule, described: Mapping[str, Any]) -> BackdoorDataModule:
        """Give a data module the shared sources in place of its own."""
        given = described["init_args"]
        datamodule.source = self._open(given["source"])
        if given.get("root_source"):
            datamodule.root_source = self._open(given["root_source"])
        return datamodule

    def fingerprint(self, described: Mapping[str, Any], views: tuple[str, ...]) -> str:
        """Give the fingerprints of the sources that views are taken from, downloaded if need be."""
        given = described["init_args"]
        named = [given["source"]]
        if sees_root(views) and given.get("root_source"):
            named.append(given["root_source"])
        return " ".join(map(self._fingerprint, named))

    def _fingerprint(self, described: Mapping[str, Any]) -> str:
        text = _text(described)
        if text not in self._fingerprints:
            source = self._open(described)
            source.prepare()
            self._fingerprints[text] = source.fingerprint()
        return self._fingerprints[text]

    def _open(self, described: Mapping[str, Any]) -> Source:
        text = _text(described)
        if text not in self._opened:
            self._opened[text] = build(described)
        return self._opened[text]


def _text(described: Mapping[str, Any]) -> str:
    return json.dumps(described, sort_keys=True, default=str)
