"""Running of chains: each stage once, its bundle found again by key, everything collected in ``results.json``."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import zipfile
from argparse import ArgumentError
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
import yaml

from lit_backdoor.bundle import Bundle, open_bundle
from lit_backdoor.chain.compose import stage_config
from lit_backdoor.chain.keys import code_of, stage_key
from lit_backdoor.chain.results import StageResult, collect
from lit_backdoor.errors import RunStoppedError
from lit_backdoor.presets import cache_folder

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
        if launcher is not None and not _command(shlex.split(launcher)):
            raise ValueError(f"Expected --launcher to start with a command that is installed, got '{launcher}'.")
        self.chain, self.name, self.out = chain, name, out
        self.launcher, self.use_cache, self.trust_cache, self.say = launcher, use_cache, trust_cache, say
        self.results: dict[str, StageResult] = {}

    def run(self) -> dict[str, Any]:
        """Run what is not done yet and write ``results.json``; gives its contents."""
        if self.out.exists() and not self.out.is_dir():
            raise ValueError(f"Expected --out to be a folder, got the file {self.out}.")
        self.plan()  # what is wrong with the last stage shows before the first one starts
        self.out.mkdir(parents=True, exist_ok=True)
        with self._lock():
            for name in self.chain["stages"]:
                self.results[name] = self._stage(name)
                self.say(_line(self.results[name]))
            return collect(self.chain, self.name, self.out, list(self.results.values()))

    def plan(self) -> list[tuple[str, str, str]]:
        """Parse and build every stage as ``fit`` would and give (name, verb, class path); nothing is run."""
        from lit_backdoor.chain.testing import WIRED, check_stage

        plan = []
        for name, stage in self.chain["stages"].items():
            config = self._config(name, dict.fromkeys(stage.get("inputs", {}), WIRED))
            _processes(config["trainer"])
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
        bundle, status = self._found(key, target, cacheable=not sources), "cached"
        if bundle is None:
            resumed = self._prepare(work, key)
            self.say(f"{name}: {'resuming' if resumed else self._verb(name)} …")
            self._launch(name, config, key, target, work, resumed)
            bundle = self._done(key, target)
            if bundle is None:
                raise RunStoppedError(
                    f"Stage '{name}' was stopped before it was complete. Start the chain again with the same --out: it "
                    "goes on from the last finished epoch."
                )
            status = "resumed" if resumed else "ran"
        if not (target / "history.json").is_file():
            _write(target / "history.json", json.dumps(_history(work)))
        if status != "cached" and not sources and self.use_cache:
            self._store(bundle, key)
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

    # Bundles that are there already.

    def _done(self, key: str, target: Path) -> Bundle | None:
        try:
            bundle = open_bundle(target)
        except (OSError, ValueError):  # damaged, not readable or none: made anew
            return None
        return bundle if bundle.info["key"] == key else None

    def _found(self, key: str, target: Path, cacheable: bool) -> Bundle | None:
        bundle = self._done(key, target)
        cached = cache_folder() / "bundles" / key
        if bundle is None and cacheable and self.use_cache and self._done(key, cached):
            with contextlib.suppress(FileNotFoundError):  # somebody is just cleaning the cache
                _copy(cached, target)
            bundle = self._done(key, target)
        return bundle

    def _store(self, bundle: Bundle, key: str) -> None:
        cached = cache_folder() / "bundles" / key
        if self._done(key, cached) is None:  # another chain may have been faster, and yet another be reading
            with contextlib.suppress(OSError):  # a cache that cannot be written costs time, not results
                _copy(bundle.path, cached)

    # Running.

    def _prepare(self, work: Path, key: str) -> bool:
        """Keep the working folder of an interrupted run of the same key; says whether there is one to resume."""
        mark = work / "key"
        if not mark.is_file() or mark.read_bytes() != key.encode():
            shutil.rmtree(work, ignore_errors=True)
            _write(mark, key)
        return _checkpoint(work) is not None

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
                config["ckpt_path"] = str(_checkpoint(work))
        file = work / "stage.yaml"
        _write(file, yaml.safe_dump(config, sort_keys=False))
        arguments = [self._verb(name), "--config", str(file)]
        if self.launcher is None and _processes(trainer) == 1:
            from lit_backdoor.lightning_cli import BackdoorCLI

            BackdoorCLI(arguments)
        else:
            self._spawn(arguments)

    def _spawn(self, arguments: list[str]) -> None:
        """Run a stage as a command of its own; it inherits the folder's lock, so an orphan keeps it."""
        launcher = shlex.split(self.launcher or "")
        torchrun = bool(launcher) and Path(launcher[0]).name == "torchrun"
        if found := _command(launcher):
            launcher[0] = found
        run = ["-m", "lit_backdoor"] if torchrun else [sys.executable, "-m", "lit_backdoor"]
        process = subprocess.Popen([*launcher, *run, *arguments], pass_fds=[self._lock_file], start_new_session=True)
        old = {
            number: signal.signal(number, lambda n, _: os.killpg(process.pid, n))
            for number in (signal.SIGTERM, signal.SIGINT)
        }
        try:
            process.wait()
        finally:
            for number, handler in old.items():
                signal.signal(number, handler)

    @contextlib.contextmanager
    def _lock(self) -> Iterator[None]:
        self._lock_file = os.open(self.out / ".lock", os.O_CREAT | os.O_RDWR, 0o666)
        try:
            try:
                fcntl.flock(self._lock_file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise ValueError(
                    f"Another run is writing {self.out} (or a stage of an earlier one still is). Wait for it, or give "
                    "another --out."
                ) from None
            yield
        finally:
            os.close(self._lock_file)

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
        _write(file, json.dumps({"of": mark, "metrics": metrics}))
        return metrics


def _command(launcher: list[str]) -> str | None:
    """Find a launcher's program, also beside this Python, whose environment need not be activated."""
    places = os.pathsep.join((os.environ.get("PATH", os.defpath), str(Path(sys.executable).parent)))
    return shutil.which(launcher[0], path=places) if launcher else None


def _processes(trainer: Mapping[str, Any]) -> int:
    """Count the processes that a Trainer would start; several re-execute the command, so they need one of their own."""
    devices = trainer.get("devices", "auto")
    text = str(devices).replace(",", "")
    listed = isinstance(devices, list) and bool(devices)
    if not (listed or text in ("auto", "-1") or (text.isdigit() and devices not in (0, "0"))):
        raise ValueError(
            f"Expected the Trainer's devices to be a number above 0, -1, auto or a list of numbers, got {devices!r}."
        )
    if isinstance(devices, list):
        devices = len(devices)
    elif devices in ("auto", -1, "-1"):
        devices = 1 if trainer.get("accelerator") == "cpu" else max(1, torch.cuda.device_count())
    return int(devices) * int(trainer.get("num_nodes", 1)) if str(devices).isdigit() else 2


def _checkpoint(work: Path) -> Path | None:
    """Find the newest checkpoint that was written to its end."""
    found = sorted((work / "checkpoints").glob("*.ckpt"), key=lambda path: path.stat().st_mtime_ns)
    return next((path for path in reversed(found) if zipfile.is_zipfile(path)), None)


def _history(work: Path) -> list[dict[str, float]]:
    """Read the epochs' numbers from every log of the run; a resumed run has several."""
    import csv

    epochs: dict[int, dict[str, float]] = {}
    logs = sorted(work.glob("logs/version_*/metrics.csv"), key=lambda path: int(path.parent.name.split("_")[1]))
    for file in logs:
        # a run that was killed may have left a line half written
        with file.open() as text, contextlib.suppress(ValueError, csv.Error):
            for row in csv.DictReader(text):
                epoch = int(row.get("epoch") or 0)
                numbers = {k: float(v) for k, v in row.items() if v and k not in ("epoch", "step")}
                epochs.setdefault(epoch, {"epoch": epoch}).update(numbers)
    return [epochs[epoch] for epoch in sorted(epochs)]


def _line(result: StageResult) -> str:
    named = [f"{k} {result.metrics[k]}" for k in ("target_class", "generator") if k in result.metrics]
    shown = "  ".join([*named, *(f"{k} {v:.3f}" for k, v in result.metrics.items() if isinstance(v, float))])
    return f"{result.name}: {result.status} in {result.seconds:.0f} s  {shown}"


def _copy(source: Path, target: Path) -> None:
    part = target.parent / f".{target.name}.{os.getpid()}.part"
    shutil.rmtree(part, ignore_errors=True)
    try:
        shutil.copytree(source, part)
        shutil.rmtree(target, ignore_errors=True)
        part.rename(target)
    finally:
        shutil.rmtree(part, ignore_errors=True)  # gone already where all went well; a full disk must not keep it


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    part.write_text(text)
    part.rename(path)
