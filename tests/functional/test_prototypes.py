import numpy as np
import pytest
import torch
from sklearn.cluster import KMeans
from torch.nn import functional as F

from lit_backdoor.functional.prototypes import (
    activation_shifts,
    class_prototypes,
    prototype_vectors,
    sanitization_loss,
    smoothed,
    vector_alignment,
)


@pytest.fixture
def rows():
    generator = torch.Generator().manual_seed(0)
    return torch.randn(40, 3, 2, 2, generator=generator), torch.arange(40) % 4


def test_prototype_is_the_plain_mean_of_centroids(rows):
    features, labels = rows
    features[:28:4] += 20  # most of class 0 lies far off, in a cluster of its own
    found = class_prototypes(features, labels, 4, seed=5)
    own = features[labels == 0].flatten(1).numpy()
    expected = KMeans(3, n_init=1, random_state=5).fit(own).cluster_centers_.mean(0)
    np.testing.assert_allclose(found[0].numpy(), expected, rtol=1e-5)
    assert np.abs(expected - own.mean(0)).max() > 1  # clusters count alike, whatever their size


def test_one_centroid_is_the_mean_and_half_precision_is_brought_up(rows):
    features, labels = rows
    found = class_prototypes(features.bfloat16(), labels, 4, centroids=1)
    expected = torch.stack([features.bfloat16().float()[labels == c].flatten(1).mean(0) for c in range(4)])
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, expected)


def test_rows_on_their_prototype_add_nothing_and_have_no_gradient():
    generator = torch.Generator().manual_seed(3)
    prototypes = torch.randn(3, 5, generator=generator)
    vectors = (prototypes[1] - prototypes)[None]
    features = torch.cat((prototypes, torch.randn(2, 5, generator=generator))).requires_grad_()
    labels = torch.tensor([0, 1, 2, 0, 2])
    loss = sanitization_loss(features, labels, prototypes, vectors)
    assert float(loss) == pytest.approx(float(sanitization_loss(features[3:], labels[3:], prototypes, vectors)))
    loss.backward()
    assert not features.grad[:3].any()
    assert 0 < features.grad[3:].abs().max() < 10


def test_missing_class_has_no_prototype(rows):
    features, labels = rows
    found = class_prototypes(features, labels, 6)
    assert found[:4].isfinite().all()
    assert found[4:].isnan().all()


def test_fewer_rows_than_centroids_are_their_own_centroids_with_a_warning(rows):
    features, _ = rows
    labels = torch.tensor([0] * 38 + [1] * 2)
    with pytest.warns(UserWarning, match=r"at least 3 root images of each class.*classes \[1\] have fewer"):
        found = class_prototypes(features, labels, 2)
    torch.testing.assert_close(found[1], features[38:].flatten(1).mean(0))


def test_no_centroid_is_refused(rows):
    with pytest.raises(ValueError, match="at least one centroid per class, got 0"):
        class_prototypes(*rows, 4, centroids=0)


def test_vectors_point_from_each_class_to_where_it_is_led():
    prototypes = torch.tensor([[0.0, 0.0], [1.0, 2.0], [5.0, 5.0]])
    found = prototype_vectors(prototypes, torch.tensor([[1, 1, 1], [1, 2, 0]]))
    assert found.tolist() == [[[1, 2], [0, 0], [-4, -3]], [[1, 2], [4, 3], [-5, -5]]]


def by_autograd(features, label, prototype, vector):
    """Eq. 2 and 3 as they are written, for one row: the gradient of the prototype loss against the vector."""
    features = features.flatten().clone().requires_grad_()
    loss = F.mse_loss(features, prototype, reduction="sum")
    [gradient] = torch.autograd.grad(loss, features, create_graph=True)
    return (gradient @ vector) / (gradient.norm() * vector.norm())


@pytest.mark.parametrize("form", ["cos", "abs"])
def test_closed_form_is_that_of_the_gradient(rows, form):
    features, labels = rows
    features, labels = features[:10].double().requires_grad_(), labels[:10]
    prototypes = torch.randn(4, 12, generator=torch.Generator().manual_seed(1)).double()
    vectors = prototype_vectors(prototypes, torch.tensor([[2, 2, 2, 2], [3, 3, 3, 3]]))
    total = 0
    for lead, target in enumerate((2, 3)):
        for row, label in zip(features, labels.tolist(), strict=True):
            if label != target:
                cosine = by_autograd(row, label, prototypes[label], vectors[lead, label])
                total += cosine.abs() if form == "abs" else cosine
    found = sanitization_loss(features, labels, prototypes, vectors, form, "sum")
    torch.testing.assert_close(found, total)


def test_gradient_is_that_of_the_written_form(rows):
    """The second backward pass of the written form gives what the closed form gives with one."""
    features, labels = rows[0][:6].double(), rows[1][:6]
    prototypes = torch.randn(4, 12, generator=torch.Generator().manual_seed(1)).double()
    vectors = prototype_vectors(prototypes, torch.tensor([[2, 2, 2, 2]]))
    closed = features.clone().requires_grad_()
    sanitization_loss(closed, labels, prototypes, vectors, "cos", "sum").backward()
    written = features.clone().requires_grad_()
    total = 0
    for row, label in zip(written, labels.tolist(), strict=True):
        if label != 2:
            away = row.flatten()
            gradient = torch.autograd.grad((away - prototypes[label]).square().sum(), away, create_graph=True)[0]
            total = total + F.cosine_similarity(gradient, vectors[0, label], dim=0)
    total.backward()
    torch.testing.assert_close(closed.grad, written.grad)


def test_target_class_is_skipped_and_the_mean_is_over_the_rest(rows):
    features, labels = rows
    prototypes = torch.randn(4, 12, generator=torch.Generator().manual_seed(1))
    vectors = prototype_vectors(prototypes, torch.tensor([[2, 2, 2, 2]]))
    total = sanitization_loss(features, labels, prototypes, vectors, "cos", "sum")
    torch.testing.assert_close(sanitization_loss(features, labels, prototypes, vectors), total / 30)
    own = features[labels == 2].requires_grad_()
    loss = sanitization_loss(own, labels[labels == 2], prototypes, vectors, "abs")
    loss.backward()
    assert loss == 0
    assert own.grad.eq(0).all()


@pytest.mark.parametrize(
    ("form", "reduction", "message"), [("cosine", "sum", "form .* 'cosine'"), ("cos", "average", "reduction 'average'")]
)
def test_unknown_option_is_refused(rows, form, reduction, message):
    with pytest.raises(ValueError, match=message):
        sanitization_loss(*rows, torch.zeros(4, 12), torch.zeros(1, 4, 12), form, reduction)


def test_smoothing_weighs_the_new_value():
    assert smoothed(torch.tensor(4.0), torch.tensor(0.0), 0.75) == 3


def test_alignment_of_vectors_with_true_shifts(rows):
    features, labels = rows
    moved, of = features[4:] + torch.randn(36, 3, 2, 2, generator=torch.Generator().manual_seed(1)), labels[4:]
    prototypes = class_prototypes(features, labels, 4, centroids=1)
    shifts = activation_shifts(moved, of, features, labels, 4)
    found = vector_alignment(prototype_vectors(prototypes, torch.tensor([[2, 2, 2, 2], [1, 2, 3, 0]])), shifts)
    before, after = (part.flatten(1).double().numpy() for part in (features, moved))
    means = np.stack([before[labels == c].mean(0) for c in range(4)])
    gone = np.stack([after[of == c].mean(0) - means[c] for c in range(4)])
    for row, leads in enumerate(([2, 2, 2, 2], [1, 2, 3, 0])):
        for c, lead in enumerate(leads):
            along = means[lead] - means[c]
            if lead == c:
                assert found[row, c].isnan()
            else:
                cosine = along @ gone[c] / np.linalg.norm(along) / np.linalg.norm(gone[c])
                assert found[row, c].item() == pytest.approx(cosine, abs=1e-5)


def test_signed_alignment_tells_toward_from_away():
    vectors = torch.tensor([[1.0, 0.0], [0.0, 2.0], [3.0, 0.0]])
    shifts = torch.tensor([[5.0, 0.0], [0.0, -1.0], [0.0, 7.0]])
    torch.testing.assert_close(vector_alignment(vectors, shifts), torch.tensor([1.0, -1.0, 0.0]))


def test_unknown_shift_has_no_alignment(rows):
    features, labels = rows
    shifts = activation_shifts(features[labels > 0], labels[labels > 0], features, labels, 5)
    assert shifts.isnan().all(1).tolist() == [True, False, False, False, True]
    vectors = torch.ones_like(shifts)
    assert vector_alignment(vectors, shifts).isnan().tolist() == [True, True, True, True, True]  # 1 to 3 did not move
