"""Every metric against a hand-written reference: as a function, in batches, in two processes, in half precision."""

import functools
import pickle

import numpy as np
import pytest
import torch
from sklearn.metrics import accuracy_score, precision_recall_fscore_support, roc_auc_score

from lit_backdoor import metrics

SIZES = (7, 16, 1, 12, 5)  # uneven: rank 0 gets batches 0, 2, 4 and rank 1 gets 1, 3
NAN = float("nan")


def draw(rows, seed=0):
    generator = torch.Generator().manual_seed(seed)
    logits, other = (torch.randn(rows, 5, generator=generator) for _ in range(2))
    target = torch.randint(5, (rows,), generator=generator)
    flags, truth, mask = (torch.rand(rows, generator=generator) < share for share in (0.4, 0.5, 0.7))
    features = torch.randn(2, rows, 3, 2, 2, generator=generator)
    scores = torch.round(torch.randn(rows, generator=generator) * 3) * 40  # ties, far outside [0, 1]
    return {
        "logits": logits,
        "other": other,
        "target": target,
        "flags": flags,
        "truth": truth,
        "mask": mask,
        "recovered": features[0],
        "true": features[1],
        "scores": scores,
    }


def ref_accuracy(preds, target):
    return accuracy_score(target, preds.argmax(1))


def ref_dof(a, b):
    return np.mean([x @ y / np.linalg.norm(x) / np.linalg.norm(y) for x, y in zip(a, b, strict=True)])


def ref_fd(a, b):
    return np.mean([np.mean((x - y) ** 2) for x, y in zip(a, b, strict=True)])


def ref_selection(selected, poisoned):
    found = precision_recall_fscore_support(poisoned, selected, average="binary", zero_division=np.nan)
    return dict(zip(("precision", "recall", "f1"), found, strict=False))


def ref_input(scores, flags, triggered):
    return ref_selection(flags, triggered) | {"auroc": roc_auc_score(triggered, scores)}


def ref_votes(preds):
    counts = np.bincount(preds.argmax(1), minlength=5)
    return {"target": counts.argmax(), "share": counts.max() / counts.sum()}


def shares(before, after, target, triggered):
    acc = [np.mean(preds.argmax(1)[~triggered] == target[~triggered]) for preds in (before, after)]
    asr = [np.mean(preds.argmax(1)[triggered] == target[triggered]) for preds in (before, after)]
    return *asr, *acc


def ref_der(*stream):
    before_asr, after_asr, before_acc, after_acc = shares(*stream)
    return (max(0, before_asr - after_asr) - max(0, before_acc - after_acc) + 1) / 2


def ref_dem(*stream):
    before_asr, after_asr, before_acc, after_acc = shares(*stream)
    kept = 1 - max(0, (before_acc - after_acc) / before_acc)
    return (kept + max(0, (before_asr - after_asr) / before_asr)) / 2


def ref_dsr(detected, target):
    return np.mean(detected == target)


votes = functools.partial(metrics.TargetVotes, num_classes=5)
CASES = {
    "acc": (metrics.Accuracy, metrics.accuracy, ("logits", "target"), ref_accuracy),
    "asr": (metrics.AttackSuccessRate, metrics.attack_success_rate, ("logits", "target"), ref_accuracy),
    "ra": (metrics.RobustAccuracy, metrics.robust_accuracy, ("logits", "target"), ref_accuracy),
    "dof": (
        metrics.DegreeOfFeatureCollisions,
        metrics.degree_of_feature_collisions,
        ("logits", "other"),
        ref_dof,
    ),
    "fd": (metrics.FeatureDistance, metrics.feature_distance, ("recovered", "true"), ref_fd),
    "selection": (metrics.SelectionScores, metrics.selection_scores, ("flags", "truth"), ref_selection),
    "input": (
        metrics.InputDetectionScores,
        metrics.input_detection_scores,
        ("scores", "flags", "truth"),
        ref_input,
    ),
    "votes": (votes, functools.partial(metrics.target_votes, num_classes=5), ("logits",), ref_votes),
    "dsr": (metrics.DetectionSuccessRate, metrics.detection_success_rate, ("target", "classes"), ref_dsr),
    "der": (metrics.DefenseEffectivenessRating, None, ("logits", "other", "target", "truth"), ref_der),
    "dem": (metrics.DefenseEfficacyMeasure, None, ("logits", "other", "target", "truth"), ref_dem),
}
each = pytest.mark.parametrize("name", CASES)
masked = pytest.mark.parametrize("use_mask", [False, True], ids=["all", "masked"])


def stream(name, use_mask):
    data = draw(sum(SIZES))
    data["classes"] = torch.where(data["flags"], data["target"], (data["target"] + 1) % 5)
    inputs = [data[column] for column in CASES[name][2]]
    mask = data["mask"] if use_mask else torch.ones_like(data["mask"])
    return inputs, mask


def reference(name, inputs, mask):
    return CASES[name][3](*(column[mask].double().numpy() if column.is_floating_point() else column[mask].numpy()
                            for column in inputs))  # fmt: skip


def batched(inputs, mask, use_mask):
    columns = [column.split(SIZES) for column in inputs]
    masks = mask.split(SIZES)
    return [
        (*(column[k] for column in columns), *((masks[k],) if use_mask else ()))
        for k in range(len(SIZES))
    ]  # fmt: skip


def plain(value):
    if isinstance(value, dict):
        return {key: float(item) for key, item in value.items()}
    return float(value)


def assert_same(got, expected, tolerance=1e-6):
    assert plain(got) == pytest.approx(plain(expected), abs=tolerance, nan_ok=True)


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case[1]])  # der, dem: test_effectiveness.py
@masked
def test_function_equals_reference(name, use_mask):
    function = CASES[name][1]
    inputs, mask = stream(name, use_mask)
    got = function(*inputs, mask=mask if use_mask else None)
    assert_same(got, reference(name, inputs, mask))


@each
@masked
def test_batches_equal_reference(name, use_mask):
    inputs, mask = stream(name, use_mask)
    metric = CASES[name][0]()
    for batch in batched(inputs, mask, use_mask):
        metric.update(*batch)
    expected = reference(name, inputs, mask)
    assert_same(metric.compute(), expected)
    assert_same(pickle.loads(pickle.dumps(metric)).compute(), expected)


def compute_on_rank(rank, world_size, build, batches):
    metric = build()
    for batch in batches[rank::world_size]:
        metric.update(*batch)
    return plain(metric.compute())


@each
def test_two_processes_equal_one(name, run_ddp):
    inputs, mask = stream(name, True)
    batches = batched(inputs, mask, True)
    results = run_ddp(compute_on_rank, CASES[name][0], batches)
    alone = compute_on_rank(0, 1, CASES[name][0], batches)
    for result in results:
        assert result == pytest.approx(alone, abs=1e-6)
        assert_same(result, reference(name, inputs, mask))


@each
def test_a_process_without_rows_changes_nothing(name, run_ddp):
    inputs, mask = stream(name, True)
    only = [(*inputs, mask), (*(column[:4] for column in inputs), torch.zeros(4, dtype=torch.bool))]
    for result in run_ddp(compute_on_rank, CASES[name][0], only):
        assert_same(result, reference(name, inputs, mask))


@each
def test_a_process_without_batches_changes_nothing(name, run_ddp):
    inputs, mask = stream(name, True)
    for result in run_ddp(compute_on_rank, CASES[name][0], [(*inputs, mask)]):
        assert_same(result, reference(name, inputs, mask))


@each
def test_without_an_update_is_nan(name):
    with pytest.warns(UserWarning, match="before the ``update``"):
        found = plain(CASES[name][0]().compute())
    if name == "votes":
        assert found["target"] == -1
        found = found["share"]
    assert all(np.isnan(value) for value in (found.values() if isinstance(found, dict) else [found]))


@each
def test_half_precision_inputs(name):
    inputs, mask = stream(name, True)
    half = [column.bfloat16() if column.is_floating_point() else column for column in inputs]
    metric = CASES[name][0]()
    metric.update(*half, mask)
    assert_same(metric.compute(), reference(name, half, mask), 1e-5)


@each
def test_nothing_counted_is_nan(name):
    inputs, mask = stream(name, True)
    metric = CASES[name][0]()
    metric.update(*inputs, torch.zeros_like(mask))
    found = plain(metric.compute())
    values = found.values() if isinstance(found, dict) else [found]
    if name == "votes":
        assert found["target"] == -1
        values = [found["share"]]
    assert all(np.isnan(value) for value in values)


@each
def test_rows_left_out_may_hold_anything(name):
    inputs, mask = stream(name, True)
    spoiled = [
        torch.where(mask.view(-1, *[1] * (column.ndim - 1)), column, NAN) if column.is_floating_point() else column
        for column in inputs
    ]
    metric = CASES[name][0]()
    metric.update(*spoiled, mask)
    assert_same(metric.compute(), reference(name, inputs, mask))


@each
@pytest.mark.parametrize("wrong", [torch.ones(45), torch.ones(3, dtype=torch.bool)])
def test_mask_must_be_flags_of_the_rows(name, wrong):
    inputs, _ = stream(name, False)
    with pytest.raises(ValueError, match="`mask`"):
        CASES[name][0]().update(*inputs, wrong)


@each
def test_reset_and_forward(name):
    inputs, mask = stream(name, True)
    batches = batched(inputs, mask, True)
    metric = CASES[name][0]()
    metric(*batches[1])
    metric.reset()
    for batch in batches:
        metric(*batch)
    assert_same(metric.compute(), reference(name, inputs, mask))
