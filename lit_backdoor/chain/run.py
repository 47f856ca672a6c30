"""Running of chains: each stage once, its bundle found again by key, everything collected in ``results.json``."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import time
from argparse import ArgumentError
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from lit_backdoor.bundle import Bundle
from lit_backdoor.chain.attack import attack_hash, attacker_of, with_attack
from lit_backdoor.chain.classes import trusted
from lit_backdoor.chain.compose import stage_config
from lit_backdoor.chain.fill import fill_in
from lit_backdoor.chain.folders import (
    check_work,
    finished,
    keep_newest_checkpoint,
    newest_checkpoint,
    read_history,
    write_whole,
)
from lit_backdoor.chain.keys import code_of, stage_identities, stage_key, stage_kin
from lit_backdoor.chain.launch import count_processes, find_program, locked, spawn
from lit_backdoor.chain.measured import measured_once
from lit_backdoor.chain.results import StageResult, collect, cost
from lit_backdoor.chain.sources import Sources
from lit_backdoor.chain.store import Store, read_made
from lit_backdoor.data import BackdoorDataModule
from lit_backdoor.disk import check_bundle_folder, check_claim, claim
from lit_backdoor.errors import RunStoppedError

if TYPE_CHECKING:
    from lit_backdoor.lightning_cli import BackdoorCLI

__all__ = ["ChainRun"]


class ChainRun:
    """One chain in one folder.

    Args:
        chain: The chain, as composed; classes are checked and lengths filled in here.
        name: Its name, for ``results.json``.
        out: Folder to write; bundles lie in it by the stages' names, working files in ``.runs``.
        launcher: Command that starts a stage on several devices, such as ``torchrun --nproc-per-node 8``; without one
            stages run in this process.
        use_cache: Whether bundles are taken from and put into the store.
        trust_cache: Whether results of other versions of the code count.
        curves: Whether stages are validated while they train, for the report's curves.
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
        curves: bool = True,
        say: Callable[[str], None] = lambda line: None,
    ) -> None:
        if (world := os.environ.get("WORLD_SIZE", "1")) not in ("", "1"):
            raise ValueError(
                f"A chain is one process; it was started as one of several (WORLD_SIZE={world}). Start it alone and "
                'give the launcher to it: lit-backdoor chain NAME --launcher "torchrun --nproc-per-node 8".'
            )
        if launcher is not None and not find_program(launcher):
            raise ValueError(f"Expected --launcher to start with a command that is installed, got '{launcher}'.")
        self.chain, self.name, self.out = fill_in(chain), name, out
        self.launcher, self.trust_cache, self.curves, self.say = launcher, trust_cache, curves, say
        self.store = Store() if use_cache else None
        self.results: dict[str, StageResult] = {}
        self._sources = Sources()
        self._composed = chain  # as it was written down: what a stage is known by before it ran
        self._identities = stage_identities(chain)
        self._parsed: dict[str, BackdoorCLI] = {}
        self._seen: dict[str, BackdoorDataModule] = {}

    def run(self) -> dict[str, Any]:
        """Run what is not done yet and write ``results.json``; gives its contents."""
        self.plan()  # what is wrong with the last stage shows before the first one starts
        claim(self.out)
        with locked(self.out) as self._lock:
            for name in self.chain["stages"]:
                self.results[name] = self._stage(name)
                self.say(_line(self.results[name]))
            data = self._data(with_attack(self.chain["data"], self._attacked()))
            return collect(self.chain, self.name, self.out, data, list(self.results.values()))

    def plan(self) -> list[tuple[str, str, str]]:
        """Parse and build every stage as ``fit`` would and give (name, verb, class path); nothing is run."""
        from lit_backdoor.chain.testing import check_stage

        self._check_folders()
        plan, opened = [], set[str]()
        for name in self.chain["stages"]:
            config = self._config(name)
            count_processes(config["trainer"])
            self._parse(name)
            data, verb = self._data(config["data"]), self._verb(name)
            check_stage(name, config, data, verb, opened=opened, here=self.launcher is None)
            plan.append((name, self._verb(name), config["model"]["class_path"]))
        return plan

    def found(self) -> dict[str, str]:
        """Say of each stage whose result is there already where it is; what waits for others is not looked for."""
        bundles: dict[str, Bundle] = {}
        where = {}
        for name, stage in self.chain["stages"].items():
            inputs = stage.get("inputs", {})
            if not set(inputs.values()) <= bundles.keys():
                continue
            hashes = {argument: bundles[source].hash for argument, source in inputs.items()}
            victim = bundles.get(attacker_of(self.chain) or "")
            if victim is not None and victim.info["attack"] is not None:
                hashes["data.attack"] = attack_hash(victim)
            try:
                key = self._key(name, hashes)
            except OSError:  # the data are not here yet
                break
            places = [(self.out / name, ", done"), *([(self.store.bundle(key), ", cached")] if self.store else [])]
            for folder, said in places:
                if name not in bundles and (bundle := finished(folder, key)):
                    bundles[name], where[name] = bundle, said
        return where

    # One stage.

    def _stage(self, name: str) -> StageResult:
        started, inputs = time.monotonic(), dict(self.chain["stages"][name].get("inputs", {}))
        sources = {argument: self.results[source].bundle for argument, source in inputs.items()}
        hashes = {argument: bundle.hash for argument, bundle in sources.items()}
        paths = {argument: bundle.path for argument, bundle in sources.items()}
        if (victim := self._attacked(name)) is not None:
            hashes["data.attack"], paths["data.attack"] = attack_hash(victim), victim.path
        key = self._key(name, hashes)
        bundle, status = self._bundle(name, key, paths)
        if self.store is not None:
            if not self.store.has(key):
                self.store.keep(bundle, key)
            self.store.note(self._identities[name], key)
        metrics = self._metrics(name, bundle, key)
        seconds, class_path = round(time.monotonic() - started, 2), self._config(name)["model"]["class_path"]
        return StageResult(name, class_path, bundle, key, status, seconds, inputs, metrics, read_made(bundle.path))

    def _attacked(self, name: str | None = None) -> Bundle | None:
        """Give the bundle that a stage takes its attack from; None for the attacker's own stage and those before it."""
        found = self.results.get(attacker_of(self.chain) or "")
        return found.bundle if found and found.name != name and found.bundle.info["attack"] is not None else None

    def _bundle(self, name: str, key: str, paths: Mapping[str, Path]) -> tuple[Bundle, str]:
        """Find the bundle of a stage in its folder or in the store, or make it; also says which."""
        target, store = self.out / name, self.store
        if (bundle := finished(target, key)) is not None:
            self._keep_history(name)  # a kill may have come between the bundle and its history
            return bundle, "cached"
        if store is None:
            return self._make(name, key, paths)
        with store.lock(key, lambda: self.say(f"{name}: another run is making the same; waiting for it …")):
            named = {argument.partition(".")[2]: path for argument, path in paths.items()}
            if (bundle := store.take(key, target, named)) is not None:
                return bundle, "cached"
            bundle, status = self._make(name, key, paths)
            store.keep(bundle, key)
            if status == "ran":
                store.note_seconds(stage_kin(self._composed, name), read_made(target)["seconds"])
            return bundle, status

    def _make(self, name: str, key: str, paths: Mapping[str, Path]) -> tuple[Bundle, str]:
        """Run a stage, or the rest of it; also says which."""
        target, work, started = self.out / name, self._work(name), time.monotonic()
        resumed = self._prepare(work, key)
        self.say(f"{name}: {'resuming' if resumed else self._verb(name)} …")
        self._launch(name, key, paths, resumed)
        bundle = finished(target, key)
        if bundle is None:
            raise RunStoppedError(
                f"Stage '{name}' was stopped before it was complete. Start the chain again with the same --out: it "
                "goes on from the last finished epoch."
            )
        status = "resumed" if resumed else "ran"
        self._keep_history(name)
        write_whole(target / "made.json", json.dumps(cost(time.monotonic() - started, status)))
        return bundle, status

    def _keep_history(self, name: str) -> None:
        file = self.out / name / "history.json"
        if not file.is_file():
            write_whole(file, json.dumps(read_history(self._work(name))))

    def _config(self, name: str, paths: Mapping[str, Path] | None = None) -> dict[str, Any]:
        """Give the settings of a stage; `WIRED` stands for inputs whose paths are not given, the attack for itself."""
        from lit_backdoor.chain.testing import WIRED

        config = stage_config(self.chain, name)
        for argument in self.chain["stages"][name].get("inputs", {}).keys() - {"data.attack"}:
            part, _, parameter = argument.partition(".")
            config[part].setdefault("init_args", {})[parameter] = str(paths[argument]) if paths else WIRED
        if paths and "data.attack" in paths:
            config["data"]["init_args"]["attack"] = str(paths["data.attack"])
        if not (self.curves or config["trainer"].get("callbacks")):
            config["trainer"]["limit_val_batches"] = 0
        return config

    def _command(self, name: str, paths: Mapping[str, Path] | None = None) -> dict[str, Any]:
        """Give the settings of a stage with what the command needs to run it."""
        config, work = self._config(name, paths), self._work(name)
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
        return config

    def _verb(self, name: str) -> str:
        return str(self.chain["stages"][name].get("run", "fit"))

    def _work(self, name: str) -> Path:
        return self.out / ".runs" / name

    def _data(self, described: Mapping[str, Any]) -> BackdoorDataModule:
        """Give a data module to look at, not to train on: one for each description."""
        text = json.dumps(described, sort_keys=True, default=str)
        if text not in self._seen:
            self._seen[text] = self._sources.data(described)
        return self._seen[text]

    def _parse(self, name: str) -> BackdoorCLI:
        """Parse a stage's settings as the command would, defaults included, once.

        Raises:
            ValueError: If the parser refuses them; names the stage.
        """
        from lit_backdoor.lightning_cli import BackdoorCLI

        if name not in self._parsed:
            with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
                yaml.safe_dump(self._command(name), file, sort_keys=False)
                file.flush()
                try:
                    self._parsed[name] = BackdoorCLI([self._verb(name), "--config", file.name], run=False)
                except ArgumentError as error:
                    raise ValueError(f"Stage '{name}' of the chain: {error}") from error
        return self._parsed[name]

    def _resolve(self, name: str) -> dict[str, Any]:
        """Give a stage's settings with all defaults, without what only says how it is run here."""
        cli, verb = self._parse(name), self._verb(name)
        resolved: dict[str, Any] = json.loads(cli.parser.dump(cli.config, skip_check=True, format="json"))[verb]
        if verb == "fit":
            resolved["trainer"]["callbacks"].pop()  # the chain's own checkpoints
        return resolved

    def _key(self, name: str, inputs: Mapping[str, str]) -> str:
        from lit_backdoor.chain.classes import load_class

        config = self._config(name)
        views = load_class(config["model"]["class_path"]).views
        return stage_key(
            self._resolve(name),
            views=views,
            verb=self._verb(name),
            inputs=inputs,
            fingerprint=self._sources.fingerprint(config["data"], views),
            trust_cache=self.trust_cache,
        )

    # Running.

    def _check_folders(self) -> None:
        """Check that nothing lies in the places of bundles and working folders that no run of ours put there.

        Raises:
            ValueError: If something does; names it.
        """
        check_claim(self.out)
        for name in self.chain["stages"]:
            check_bundle_folder(self.out / name)
            check_work(self._work(name))

    def _prepare(self, work: Path, key: str) -> bool:
        """Keep the working folder of an interrupted run of the same key; says whether there is one to resume."""
        mark = work / "key"
        if not mark.is_file() or mark.read_bytes() != key.encode():
            check_work(work)
            shutil.rmtree(work, ignore_errors=True)
            write_whole(mark, key)
        keep_newest_checkpoint(work)
        return newest_checkpoint(work) is not None

    def _launch(self, name: str, key: str, paths: Mapping[str, Path], resumed: bool) -> None:
        config, work = self._command(name, paths), self._work(name)
        given: dict[str, Any] = {"out": str(self.out / name), "key": key, "trust": list(trusted(self.chain))}
        if resumed:
            given["ckpt_path"] = str(newest_checkpoint(work))
        file = work / "stage.yaml"
        write_whole(file, yaml.safe_dump({**config, **given}, sort_keys=False))
        if self.launcher is None and count_processes(config["trainer"]) == 1:
            wired = {argument.replace(".", ".init_args.", 1): str(path) for argument, path in paths.items()}
            self._parse(name).start({**given, **wired}, lambda data: self._sources.lend(data, config["data"]))
        else:
            spawn([self._verb(name), "--config", str(file)], self.launcher, self._lock)

    # Numbers.

    def _metrics(self, name: str, bundle: Bundle, key: str) -> dict[str, Any]:
        """Test the bundle in this process, once, and add the numbers that the stage itself gave."""
        from lit_backdoor.chain.testing import kept_arguments, test_bundle

        data, source = stage_config(self.chain, name)["data"], self._attacked(name) or bundle
        trainer = kept_arguments(self.chain.get("trainer") or {})
        mark = {
            "hash": bundle.hash,
            "data": data,
            "attack": attack_hash(source) if source.info["attack"] is not None else None,
            "fingerprint": self._sources.fingerprint(data, ()),
            "trainer": trainer,
            "code": None if self.trust_cache else code_of(data),  # a trigger may have changed that no weights depend on
        }
        work, described = self._work(name), with_attack(data, source)

        def measure() -> dict[str, Any]:
            tested = test_bundle(bundle, self._sources.data(described), self.chain.get("trainer") or {}, work)
            return {**bundle.numbers, **tested}

        return measured_once(mark, key, work / "metrics.json", self.store, measure)


def _line(result: StageResult) -> str:
    named = [f"{k} {result.metrics[k]}" for k in ("target_class", "generator") if k in result.metrics]
    shown = "  ".join([*named, *(f"{k} {v:.3f}" for k, v in result.metrics.items() if isinstance(v, float))])
    return f"{result.name}: {result.status} in {result.seconds:.0f} s  {shown}"
