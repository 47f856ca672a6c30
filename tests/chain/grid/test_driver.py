"""The graph of a grid, its plan, and the order in which an engine gets its nodes."""

import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from grid_parts import Pretend, nodes_of, write_grid

from lit_backdoor.chain.grid.driver import Driver, task_of
from lit_backdoor.chain.grid.plan import make_plan
from lit_backdoor.chain.store import Store


@pytest.fixture
def store(tmp_path):
    store = Store(tmp_path / "store")
    store.create()
    return store


@pytest.fixture
def nodes(tmp_path):
    return nodes_of(write_grid(tmp_path))


def drive(nodes, out, store, retries=0, **options):
    plan, said = make_plan(nodes, out, store), []
    engine = Pretend(nodes, out, store, **options)
    driver = Driver(plan.wanted, out, store, retries, lambda line, over: said.append((line, over)))
    driver.run(engine)
    return driver, engine, said


def test_victims_are_nodes_that_their_cells_need(nodes):
    victims, cells = [n for n in nodes if n.stage], [n for n in nodes if not n.stage]
    assert (len(victims), len(cells)) == (4, 12)
    assert {(victim.stage, victim.needs) for victim in victims} == {("victim", ())}
    for cell in cells:
        assert cell.needs == (f"mini-{cell.cell.attack}-victim-seed{cell.cell.seed}",)
        assert cell.makes == ("clean",)
    assert victims[0].command(Path("out"))[-2:] == ["--until", "victim"]
    assert cells[0].command(Path("out"))[-3:] == ["--out", f"out/cells/{cells[0].name}", "--no-report"]


def test_plan_says_what_runs_what_waits_and_for_how_long(nodes, tmp_path, store):
    plan = make_plan(nodes, tmp_path / "out", store)
    assert (len(plan.ready), len(plan.blocked), len(plan.cached)) == (4, 12, 0)
    assert (plan.seconds, plan.unknown) == (0, 16)
    assert plan.blocked[0][1] == plan.blocked[0][0].needs
    for node in nodes:
        for stage in node.makes:
            store.note_seconds(node.kin[stage], 90 if stage == "victim" else 30)
    assert make_plan(nodes, tmp_path / "out", store).seconds == 4 * 90 + 12 * 30
    assert "16 to run (12 of them blocked by others), 0 cached; about 0.20 hours" in plan_line(nodes, tmp_path, store)


def plan_line(nodes, tmp_path, store):
    return make_plan(nodes, tmp_path / "out", store).lines()[-1]


def test_seconds_are_those_of_another_attack_and_seed(nodes):
    kin = {node.kin["victim"] for node in nodes if node.stage}
    assert len(kin) == 1
    assert len({node.kin["clean"] for node in nodes if not node.stage}) == 3


def test_each_node_runs_once_and_after_what_it_needs_and_a_second_time_nothing_runs(nodes, tmp_path, store):
    out = tmp_path / "out"
    driver, engine, said = drive(nodes, out, store)
    assert sorted(engine.ran) == sorted(node.name for node in nodes)
    assert all(engine.ran.index(need) < engine.ran.index(node.name) for node in nodes for need in node.needs)
    assert engine.most > 1
    assert not driver.failed
    assert [line for line, _ in said if "done" in line][-1].startswith("[16/16] ")
    assert not make_plan(nodes, out, store).wanted
    assert drive(nodes, out, store)[1].ran == []


def test_finished_cells_need_no_victim_any_more(nodes, tmp_path, store):
    drive(nodes, tmp_path / "out", store)
    for node in nodes:
        if node.stage:
            shutil.rmtree(store.bundle(store.key_of(node.identity)))
    assert not make_plan(nodes, tmp_path / "out", store).wanted
    lost = next(node for node in nodes if not node.stage)
    shutil.rmtree(lost.folder(tmp_path / "out"))
    assert [node.name for node in make_plan(nodes, tmp_path / "out", store).wanted] == [*lost.needs, lost.name]


def test_victims_in_the_store_are_not_trained_for_a_new_folder(nodes, tmp_path, store):
    drive(nodes, tmp_path / "out", store)
    plan = make_plan(nodes, tmp_path / "other", store)
    assert (len(plan.ready), len(plan.blocked), len(plan.cached)) == (12, 0, 4)
    assert (plan.seconds, plan.unknown) == (0, 0)


@pytest.mark.parametrize(("code", "tries"), [(1, 3), (-9, 3), (None, 3), (2, 1)])
def test_failed_node_is_tried_again_but_not_a_mistake_and_blocks_what_needs_it_by_name(
    nodes, tmp_path, store, code, tries
):
    victim = next(node for node in nodes if node.stage)
    driver, engine, said = drive(nodes, tmp_path / "out", store, retries=2, failing=[victim.name], code=code)
    assert engine.ran.count(victim.name) == tries
    blocked = {node.name for node in nodes if victim.name in node.needs}
    assert set(driver.failed) == {victim.name, *blocked}
    assert {driver.failed[name] for name in blocked} == {f"blocked by {victim.name}"}
    assert len(engine.ran) == tries + 16 - 1 - len(blocked)
    assert (
        "its worker was lost" in driver.failed[victim.name]
        if code is None
        else "Expected more" in driver.failed[victim.name]
    )
    assert max(over for _, over in said) == 16


def test_engine_s_word_is_not_taken(nodes, tmp_path, store, monkeypatch):
    liar, honest = nodes[0].name, Pretend.make
    monkeypatch.setattr(Pretend, "make", lambda self, node: None if node.name == liar else honest(self, node))
    driver, _, _ = drive(nodes, tmp_path / "out", store)
    assert driver.failed[liar] == "it left no whole bundle in the store"

    def truncate(self, node):
        honest(self, node)
        if node.name == liar:
            (store.bundle(store.key_of(node.identity)) / "weights.safetensors").write_bytes(b"")

    monkeypatch.setattr(Pretend, "make", truncate)
    driver, _, _ = drive(nodes, tmp_path / "out", store)
    assert driver.failed[liar] == "it left no whole bundle in the store"


def test_node_counts_as_made_whatever_its_engine_says(nodes, tmp_path, store, monkeypatch):
    """A worker may be killed after its bundle is in the store."""
    wait = Pretend.wait
    monkeypatch.setattr(Pretend, "wait", lambda self: replace(wait(self), code=None))
    driver, engine, _ = drive(nodes, tmp_path / "out", store, retries=2)
    assert not driver.failed
    assert len(engine.ran) == 16


def test_task_says_threads_store_and_log(nodes, tmp_path, store, monkeypatch):
    """Another machine has neither the variables of this package nor the path to it."""
    monkeypatch.setattr(os, "environ", {"LIT_BACKDOOR_DATA": "/data", "PYTHONPATH": "/code", "HOME": "/home/me"})
    task = task_of(nodes[0], tmp_path / "out", store)
    assert task.cpus == 1
    assert task.variables == {
        "LIT_BACKDOOR_DATA": "/data", "PYTHONPATH": "/code", "LIT_BACKDOOR_CACHE": str(store.folder),
        "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1",
    }  # fmt: skip
    assert task.log == tmp_path / "out" / "logs" / f"{nodes[0].name}.log"


@pytest.mark.parametrize(("asked", "cpus"), [("3", 3), ("0", None), ("many", None), (None, None)])
def test_threads_are_those_asked_for_or_all_that_this_process_may_use(nodes, tmp_path, store, monkeypatch, asked, cpus):
    monkeypatch.setattr(os, "environ", {} if asked is None else {"OMP_NUM_THREADS": asked})
    node = replace(nodes[0], cell=replace(nodes[0].cell, cpus=None))
    assert task_of(node, tmp_path / "out", store).cpus == (cpus or len(os.sched_getaffinity(0)))
