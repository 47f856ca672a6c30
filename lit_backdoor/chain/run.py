"""Running of chains: each stage once, its bundle found again by key, everything collected in ``results.json``."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import tempfile
import time
from argparse import ArgumentError
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import yaml

from lit_backdoor.bundle import Bundle
from lit_backdoor.chain.compose import stage_config
from lit_backdoor.chain.folders import (
    check_work,
    finished,
    from_cache,
    keep_newest_checkpoint,
    newest_checkpoint,
    read_history,
    to_cache,
    write_whole,
)
from lit_backdoor.chain.keys import code_of, stage_key
from lit_backdoor.chain.launch import count_processes, find_program, locked, spawn
from lit_backdoor.chain.results import StageResult, collect
from lit_backdoor.disk import check_bundle_folder, check_claim, claim
from lit_backdoor.errors import RunStoppedError

__all__ = ["ChainRun"]


class ChainRun:
    """One chain in one folder.

    Args:
        chain: The chain, composed and checked.
        name: Its name, for ``results.json``.
        out: Folder to write; bundles lie in it by the stages' names, working files in ``.runs``.
        launcher: Command that starts a stage on several devices, such as ``torchrun --nproc-per-node 8``; without one
            stages run in this process.
        use_cache: Whether stages without inputs (victims) are taken from and put into the cache folder.
        trust_cache: Whether results of other versions of the code count.
        say: Prints one line.
    """

    def __init__(
        self,
        chain: Mapping[str, Any],
        name: str,
        out: Path,
        *,
        launcher: str | None = None,
        use_cache: bool = True,
        trust_cache: bool = False,
        say: Callable[[str], None] = lambda line: None,
    ) -> None:
        if int(os.environ.get("WORLD_SIZE", "1")) > 1:
            raise ValueError(
                "A chain is one process; it was started as one of several (WORLD_SIZE > 1). Start it alone and give "
                'the launcher to it: lit-backdoor chain NAME --launcher "torchrun --nproc-per-node 8".'
            )
        if launcher is not None and not find_program(launcher):
            raise ValueError(f"Expected --launcher to start with a command that is installed, got '{launcher}'.")
        self.chain, self.name, self.out = chain, name, out
        self.launcher, self.use_cache, self.trust_cache, self.say = launcher, use_cache, trust_cache, say
        self.results: dict[str, StageResult] = {}

    def run(self) -> dict[str, Any]:
        """Run what is not done yet and write ``results.json``; gives its contents."""
        self.plan()  # what is wrong with the last stage shows before the first one starts
        claim(self.out)
        with locked(self.out) as self._lock:
            for name in self.chain["stages"]:
                self.results[name] = self._stage(name)
                self.say(_line(self.results[name]))
            return collect(self.chain, self.name, self.out, list(self.results.values()))

    def plan(self) -> list[tuple[str, str, str]]:
        """Parse and build every stage as ``fit`` would and give (name, verb, class path); nothing is run."""
        from lit_backdoor.chain.testing import WIRED, check_stage

        self._check_folders()
        plan = []
        for name, stage in self.chain["stages"].items():
            config = self._config(name, dict.fromkeys(stage.get("inputs", {}), WIRED))
            count_processes(config["trainer"])
            self._resolve(name, config)
            check_stage(name, config, self._verb(name))
            plan.append((name, self._verb(name), config["model"]["class_path"]))
        return plan

    # One stage.

    def _stage(self, name: str) -> StageResult:
        stage, started = self.chain["stages"][name], time.monotonic()
        sources = {argument: self.results[source].bundle for argument, source in stage.get("inputs", {}).items()}
        config = self._config(name, {argument: str(bundle.path) for argument, bundle in sources.items()})
        key = self._key(name, config, {argument: bundle.hash for argument, bundle in sources.items()})
        target, work = self.out / name, self.out / ".runs" / name
        cacheable, status = self.use_cache and not sources, "cached"
        bundle = finished(target, key) or (from_cache(key, target) if cacheable else None)
        if bundle is None:
            resumed = self._prepare(work, key)
            self.say(f"{name}: {'resuming' if resumed else self._verb(name)} …")
            self._launch(name, config, key, target, work, resumed)
            bundle = finished(target, key)
            if bundle is None:
                raise RunStoppedError(
                    f"Stage '{name}' was stopped before it was complete. Start the chain again with the same --out: it "
                    "goes on from the last finished epoch."
                )
            status = "resumed" if resumed else "ran"
        if not (target / "history.json").is_file():
            write_whole(target / "history.json", json.dumps(read_history(work)))
        if cacheable and status != "cached":
            to_cache(bundle, key)
        metrics = self._metrics(name, bundle, work)
        inputs = dict(stage.get("inputs", {}))
        seconds = round(time.monotonic() - started, 2)
        return StageResult(name, config["model"]["class_path"], bundle, key, status, seconds, inputs, metrics)

    def _config(self, name: str, paths: Mapping[str, str]) -> dict[str, Any]:
        config = stage_config(self.chain, name)
        for argument, path in paths.items():
            part, _, parameter = argument.partition(".")
            config[part].setdefault("init_args", {})[parameter] = path
        return config

    def _verb(self, name: str) -> str:
        return str(self.chain["stages"][name].get("run", "fit"))

    def _resolve(self, name: str, config: Mapping[str, Any]) -> dict[str, Any]:
        """Parse a configuration as the command would, defaults included.

        Raises:
            ValueError: If the parser refuses it; names the stage.
        """
        from lit_backdoor.lightning_cli import BackdoorCLI

        with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
            yaml.safe_dump(dict(config), file, sort_keys=False)
            file.flush()
            try:
                cli = BackdoorCLI([self._verb(name), "--config", file.name], run=False)
            except ArgumentError as error:
                raise ValueError(f"Stage '{name}' of the chain: {error}") from error
        dumped = cli.parser.dump(cli.config, skip_check=True, format="json")
        resolved: dict[str, Any] = json.loads(dumped)[self._verb(name)]
        return resolved

    def _key(self, name: str, config: Mapping[str, Any], inputs: Mapping[str, str]) -> str:
        from lit_backdoor.chain.names import load_class

        stage = load_class(config["model"]["class_path"])
        return stage_key(
            self._resolve(name, config),
            views=stage.views,
            verb=self._verb(name),
            inputs=inputs,
            fingerprint=self._fingerprint(config["data"]["init_args"], stage.views),
            trust_cache=self.trust_cache,
        )

    def _fingerprint(self, data: Mapping[str, Any], views: tuple[str, ...]) -> str:
        from lit_backdoor.chain.testing import build

        sources = [build(data["source"])]
        if "root" in views and data.get("root_source"):
            sources.append(build(data["root_source"]))
        for source in sources:
            source.prepare()
        return " ".join(source.fingerprint() for source in sources)

    # Running.

    def _check_folders(self) -> None:
        """Check that nothing lies in the places of bundles and working folders that no run of ours put there.

        Raises:
            ValueError: If something does; names it.
        """
        check_claim(self.out)
        for name in self.chain["stages"]:
            check_bundle_folder(self.out / name)
            check_work(self.out / ".runs" / name)

    def _prepare(self, work: Path, key: str) -> bool:
        """Keep the working folder of an interrupted run of the same key; says whether there is one to resume."""
        mark = work / "key"
        if not mark.is_file() or mark.read_bytes() != key.encode():
            check_work(work)
            shutil.rmtree(work, ignore_errors=True)
            write_whole(mark, key)
        keep_newest_checkpoint(work)
        return newest_checkpoint(work) is not None

    def _launch(self, name: str, config: dict[str, Any], key: str, target: Path, work: Path, resumed: bool) -> None:
        config = {**config, "out": str(target), "key": key}
        trainer = config["trainer"]
        trainer["default_root_dir"] = str(work)
        trainer["logger"] = {
            "class_path": "lightning.pytorch.loggers.CSVLogger",
            "init_args": {"save_dir": str(work), "name": "logs"},
        }
        if self._verb(name) == "fit":
            trainer.setdefault("callbacks", []).append({
                "class_path": "lightning.pytorch.callbacks.ModelCheckpoint",
                "init_args": {"dirpath": str(work / "checkpoints"), "filename": "{epoch}", "save_top_k": 1},
            })  # fmt: skip
            if resumed:
                config["ckpt_path"] = str(newest_checkpoint(work))
        file = work / "stage.yaml"
        write_whole(file, yaml.safe_dump(config, sort_keys=False))
        arguments = [self._verb(name), "--config", str(file)]
        if self.launcher is None and count_processes(trainer) == 1:
            from lit_backdoor.lightning_cli import BackdoorCLI

            BackdoorCLI(arguments)
        else:
            spawn(arguments, self.launcher, self._lock)

    # Numbers.

    def _metrics(self, name: str, bundle: Bundle, work: Path) -> dict[str, Any]:
        """Test the bundle in this process, once; the numbers that the stage left stand beside."""
        from lit_backdoor.chain.testing import kept_arguments, test_bundle

        data = stage_config(self.chain, name)["data"]
        code = None if self.trust_cache else code_of(data)  # a trigger may have changed that no weights depend on
        trainer = kept_arguments(self.chain.get("trainer") or {})
        mark = {"hash": bundle.hash, "data": data, "trainer": trainer, "code": code}
        file = work / "metrics.json"
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            stored = json.loads(file.read_text())
            if stored["of"] == json.loads(json.dumps(mark)):
                return dict(stored["metrics"])
        metrics = {**bundle.numbers, **test_bundle(bundle, data, self.chain.get("trainer") or {}, work)}
        write_whole(file, json.dumps({"of": mark, "metrics": metrics}))
        return metrics


def _line(result: StageResult) -> str:
    named = [f"{k} {result.metrics[k]}" for k in ("target_class", "generator") if k in result.metrics]
    shown = "  ".join([*named, *(f"{k} {v:.3f}" for k, v in result.metrics.items() if isinstance(v, float))])
    return f"{result.name}: {result.status} in {result.seconds:.0f} s  {shown}"
