"""Slurm: an array script, the command lines it picks from, and the lines that submit them in order."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Mapping, Sequence
from itertools import groupby
from pathlib import Path

from lit_backdoor.chain.engines.task import Task
from lit_backdoor.chain.folders import write_whole

__all__ = ["write_script"]

_ARRAY = """#!/bin/sh
# Runs line SLURM_ARRAY_TASK_ID of a list of command lines; submit.sh says which list.
#SBATCH --job-name=lit-backdoor
#SBATCH --output=/dev/null
eval "$(sed -n "$((SLURM_ARRAY_TASK_ID + 1))p" "$1")"
"""


def write_script(tasks: Sequence[Task], needs: Mapping[str, Mapping[str, Path]], out: Path) -> Path:
    """Write what submits tasks to Slurm.

    Tasks of one depth and size are one array, which starts when all arrays of the depth above have ended, well or not:
    a task whose needs did not come says so in its log and ends.

    Args:
        tasks: The tasks, each after those that it needs.
        needs: For each task, the files that must be there before it runs, by the names of the tasks that make them.
        out: Folder to write.

    Returns:
        ``submit.sh``; ``sh submit.sh`` submits everything.
    """
    depth: dict[str, int] = {}
    for task in tasks:
        depth[task.name] = 1 + max((depth[name] for name in needs[task.name] if name in depth), default=-1)
    array, lines, above = out / "array.sh", ["#!/bin/sh", "set -e"], ""
    for level, members in groupby(sorted(tasks, key=lambda task: depth[task.name]), lambda task: depth[task.name]):
        jobs = []
        sized = sorted(members, key=_size)
        for number, (size, alike) in enumerate(groupby(sized, _size)):
            listed, commands = out / f"level{level}-{number}.txt", [_line(task, needs[task.name]) for task in alike]
            write_whole(listed, "".join(f"{command}\n" for command in commands))
            cpus, gpus = size
            options = f"--array=0-{len(commands) - 1} --cpus-per-task={cpus}" + (f" --gpus={gpus}" if gpus else "")
            options += f" --dependency=afterany{above}" if above else ""
            jobs.append(f"job{level}_{number}")
            lines.append(
                f"{jobs[-1]}=$(sbatch --parsable {options} {shlex.quote(str(array))} {shlex.quote(str(listed))})"
            )
        above = "".join(f":${{{job}%%;*}}" for job in jobs)  # a job of another cluster is given as NUMBER;CLUSTER
    write_whole(array, _ARRAY)
    submit = out / "submit.sh"
    write_whole(submit, "\n".join(lines) + "\n")
    return submit


def _size(task: Task) -> tuple[int, int]:
    return task.cpus, -int(-task.gpus // 1)  # Slurm knows no shares of a GPU here


def _line(task: Task, needs: Mapping[str, Path]) -> str:
    """Write a task as one line of shell."""
    log = shlex.quote(str(task.log))
    checks = [
        f"test -e {shlex.quote(str(file))} || {{ echo {shlex.quote(f'blocked by {name}')} >> {log}; exit 1; }};"
        for name, file in needs.items()
    ]
    variables = [f"{name}={shlex.quote(value)}" for name, value in task.variables.items()]
    command = shlex.join([sys.executable, "-m", "lit_backdoor", *task.words])
    return " ".join([f"cd {shlex.quote(str(task.folder))};", *checks, *variables, command, f">> {log} 2>&1"])
