"""The command line on a hostile file, in a process of its own that is watched: what it wrote, called and took."""

import json
import multiprocessing
import os
import resource
import sys
import tempfile
import time
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import pytest
import tiny
import yaml
from cli_parts import POISONED, written

from lit_backdoor.bundle import open_bundle
from lit_backdoor.cli import _report, main
from lit_backdoor.weights import load_weights

SECONDS, MEGABYTES = 10, 1000
_CONNECTS = {"socket.connect", "socket.getaddrinfo", "socket.gethostbyname", "socket.sendto", "socket.bind"}
_STARTS = {
    "subprocess.Popen",
    "os.system",
    "os.exec",
    "os.posix_spawn",
    "os.spawn",
    "os.fork",
    "os.forkpty",
    "pty.spawn",
}
_TOUCHES = {"os.remove", "os.rename", "os.rmdir", "os.mkdir", "os.truncate", "os.chmod", "os.chown", "os.link",
            "os.symlink", "shutil.rmtree", "shutil.move", "shutil.copyfile"}  # fmt: skip
_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND


@dataclass
class Outcome:
    code: int
    error: str
    deeds: list
    megabytes: float


def marker(folder):
    """A payload may make this file, and nothing else."""
    return folder / "marker"


class Payload:
    """What a hostile pickle calls."""

    def __init__(self, folder):
        self.folder = folder

    def __reduce__(self):
        return os.system, (f"touch {marker(self.folder)}",)


def build(path):
    """Build what a bundle holds."""
    open_bundle(path).build()


def load(path):
    """Load weights from elsewhere."""
    load_weights(tiny.classifier(), path)


def run(folder, arguments):
    """Run the command line, or a function, with ``folder/work`` as its folder; gives what came of it.

    Args:
        folder: The test's own folder.
        arguments: Those of the command line; or a function and its arguments, whose error is said as a command would.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([
        "hostile_parts", "lit_backdoor.lightning_cli", "lit_backdoor.chain.command", "lit_backdoor.audit.command",
        "lit_backdoor.purify.command",
    ])  # fmt: skip
    work = folder / "work"
    work.mkdir(exist_ok=True)
    here, there = context.Pipe()
    process = context.Process(target=_child, args=(str(work), arguments, there))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join(filter(None, sys.path)))  # the fork server ignores sys.path
        process.start()
    there.close()
    try:
        assert here.poll(12 * SECONDS), "it hangs"
        return Outcome(*here.recv())
    except EOFError:
        process.join()
        raise AssertionError(f"it died by signal {-process.exitcode}; {SECONDS} s of computing are allowed") from None
    finally:
        process.kill()
        process.join()


def _child(work, arguments, pipe):
    deeds = []
    os.environ |= {"TMPDIR": work, "LIT_BACKDOOR_CACHE": f"{work}/cache", "HOME": work}
    os.environ.pop("LIT_BACKDOOR_TRACEBACK", None)
    tempfile.tempdir = None  # chosen by the fork server already
    os.chdir(work)
    sys.dont_write_bytecode = True
    with Path("said").open("wb") as said:
        os.dup2(said.fileno(), 1)
        os.dup2(said.fileno(), 2)
    start, peak = _peak(reset=True)
    resource.setrlimit(resource.RLIMIT_CPU, (int(time.process_time()) + SECONDS + 1, resource.RLIM_INFINITY))
    sys.addaudithook(lambda event, args: _note(deeds, work, event, args))
    code = _call(*arguments) if callable(arguments[0]) else main([str(each) for each in arguments])
    sys.stdout.flush()
    sys.stderr.flush()
    end, peak = _peak()
    pipe.send((code, Path("said").read_text(errors="replace"), deeds, (max(end, peak) - start) / 1e3))


def _call(function, *arguments):
    try:
        function(*arguments)
    except Exception as error:
        return _report(error)
    return 0


def _peak(reset=False):
    """Resident and peak memory of this process in kB; nothing where the system does not tell."""
    status = Path("/proc/self/status")
    if not status.exists():
        return 0, 0
    if reset:
        Path("/proc/self/clear_refs").write_text("5")
    fields = dict(line.split(":", 1) for line in status.read_text().splitlines())
    return int(fields["VmRSS"].split()[0]), int(fields["VmHWM"].split()[0])


def _note(deeds, work, event, args):
    if event in _CONNECTS or event in _STARTS:
        deeds.append(f"{event} {args}")
    elif event in _TOUCHES:
        deeds += [f"{event} {path}" for path in args[:2] if isinstance(path, str | bytes) and _outside(work, path)]
    elif event == "open" and isinstance(args[2], int) and args[2] & _WRITES and _outside(work, args[0]):
        deeds.append(f"open {args}")


def _outside(work, path):
    if isinstance(path, int) or path is None:
        return False
    found = os.path.realpath(os.fsdecode(path))
    return found != os.devnull and not Path(found).is_relative_to(os.path.realpath(work))


def assert_refused(folder, arguments, *says):
    """Run it beside a file that is not to be touched; it must say what is wrong in one line and leave with 2."""
    precious = folder / "precious" / "file"
    precious.parent.mkdir()
    precious.write_text("mine")
    outcome = run(folder, arguments)
    lines = [line for line in outcome.error.splitlines() if line.startswith("lit-backdoor: ")]
    assert not outcome.deeds, outcome.deeds
    assert precious.read_text() == "mine"
    assert not marker(folder).exists()
    assert "Traceback" not in outcome.error
    assert outcome.code == 2, outcome.error[-2000:]
    assert len(lines) == 1, outcome.error[-2000:]
    assert len(lines[0]) < 1000
    assert outcome.error.rstrip().endswith(lines[0]), outcome.error[-2000:]
    for text in says:
        assert text in lines[0]
    assert outcome.megabytes < MEGABYTES


def data_file(folder, **data):
    """Write the data's configuration, for commands that take a stage from elsewhere."""
    config = yaml.safe_load(Path(written(folder, POISONED, data=data)).read_text())
    del config["model"], config["trainer"]["max_epochs"]
    (folder / "data.yaml").write_text(yaml.safe_dump(config))
    return folder / "data.yaml"


def rehashed(path, **changes):
    """Change bundle.json as an attacker does who can hash."""
    info = json.loads((path / "bundle.json").read_text()) | changes
    info["weights"] = sha256((path / "weights.safetensors").read_bytes()).hexdigest()
    counted = {key: value for key, value in info.items() if key not in ("hash", "version")}
    counted["inputs"] = {name: source["hash"] for name, source in info["inputs"].items()}
    info["hash"] = sha256(json.dumps(counted, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
    (path / "bundle.json").write_text(json.dumps(info))
