"""Mini-batches and losses."""

from typing import Any

import numpy as np
import pytest
import torch
from sklearn.metrics import log_loss, mean_squared_error
from torch import Tensor

from sktarget.training import (
    CRITERIA,
    TensorData,
    as_inputs,
    quantile_criterion,
    rows_at_a_time,
)
from sktarget.training._data import MiniBatches
from sktarget.training._losses import squared_norm
from tests import reference
from tests.helpers import normal


def data(n: int = 10, *, weighted: bool = False) -> TensorData:
    x = torch.arange(float(n))[:, None]
    return TensorData(x, torch.arange(n), torch.arange(n) / 5 if weighted else None)


# --- Mini-batches ---------------------------------------------------------------------


@pytest.mark.parametrize("batch_size", [10, 11])
@pytest.mark.parametrize("shuffled", [False, True])
def test_full_batch_is_the_very_tensor(batch_size: int, shuffled: bool) -> None:
    rows = data(weighted=True)
    generator = torch.Generator() if shuffled else None
    batches = MiniBatches(rows, batch_size, generator)
    assert len(batches) == 1
    (batch,) = batches
    assert batch[0] is rows.x
    assert batch[1] is rows.y
    assert batch.weight is rows.weight


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize(
    ("batch_size", "sizes"), [(3, [3, 3, 3, 1]), (5, [5, 5]), (1, [1] * 10)]
)
def test_shuffled_batches_cover_all_rows_once(
    batch_size: int, sizes: list[int], weighted: bool
) -> None:
    batches = MiniBatches(
        data(weighted=weighted), batch_size, torch.Generator().manual_seed(0)
    )
    assert len(batches) == len(sizes)
    orders = []
    for _ in range(2):
        epoch = list(batches)
        assert [len(batch[0]) for batch in epoch] == sizes
        for batch in epoch:
            (x, y), weight = batch, batch.weight
            assert torch.equal(x[:, 0].long(), y)
            assert weight is None if not weighted else torch.equal(weight, y / 5)
        orders.append(torch.cat([batch[1] for batch in epoch]).tolist())
        assert sorted(orders[-1]) == list(range(10))
    assert orders[0] != orders[1]
    again = MiniBatches(data(), batch_size, torch.Generator().manual_seed(0))
    assert torch.cat([batch[1] for batch in again]).tolist() == orders[0]


def test_without_generator_rows_keep_their_order() -> None:
    epoch = list(MiniBatches(data(), 4))
    assert [batch[1].tolist() for batch in epoch] == [
        [0, 1, 2, 3],
        [4, 5, 6, 7],
        [8, 9],
    ]


@pytest.mark.parametrize("batch_size", [2, 5])
def test_bytes_are_scaled_batch_by_batch(batch_size: int) -> None:
    stored = torch.arange(0, 255, 51, dtype=torch.uint8).reshape(5, 1, 1, 1)
    rows = TensorData(stored, torch.arange(5), dtype=torch.float64)
    given = torch.cat([x for x, _ in MiniBatches(rows, batch_size)])
    assert given.dtype == torch.float64
    np.testing.assert_allclose(given.flatten(), np.arange(5) / 5, rtol=1e-15)
    assert rows.x is stored


@pytest.mark.parametrize("batch_size", [2, 5])
def test_batches_go_to_the_device_one_at_a_time(batch_size: int) -> None:
    device = torch.device("meta")
    rows = TensorData(torch.rand(5, 1, 2, 2), torch.arange(5), device=device)
    assert [x.device for x, _ in MiniBatches(rows, batch_size)] == [device] * len(
        MiniBatches(rows, batch_size)
    )
    assert rows.x.device.type == "cpu"


def test_inputs_that_need_no_change_are_the_very_tensor() -> None:
    x = torch.rand(3, 4)
    assert as_inputs(x) is x
    assert as_inputs(x, torch.float64).dtype == torch.float64
    tokens = torch.tensor([7, 8])
    assert as_inputs(tokens) is tokens


@pytest.mark.parametrize(
    ("shape", "n"),
    [
        ((0, 5), 1024),
        ((9, 10**7), 1),
        ((9, 1, 28, 28), 668),
        ((9, 3, 1000, 1000), 1),
        ((9, 1, 4, 4), 1024),
    ],
)
def test_images_are_evaluated_in_bounded_numbers(shape: Any, n: int) -> None:
    assert rows_at_a_time(torch.empty(shape, device="meta")) == n


# --- Losses ---------------------------------------------------------------------------

ROWS = np.random.default_rng(0)
SUMS = ROWS.normal(size=(30, 3))
LABELS = {
    "cross_entropy": ROWS.integers(3, size=30),
    "logistic": ROWS.integers(2, size=(30, 3)).astype(float),
    "squared_error": ROWS.normal(size=(30, 3)),
    "absolute_error": ROWS.normal(size=(30, 3)),
    "quantile": ROWS.normal(size=(30, 3)),
    "poisson": ROWS.poisson(1.5, size=(30, 3)).astype(float),
}
ALL = CRITERIA | {"quantile": quantile_criterion(0.8)}
WEIGHT = ROWS.uniform(0, 2, size=30)
WEIGHT /= WEIGHT.mean()
NAMES = {
    "cross_entropy": "softmax",
    "logistic": "logistic",
    "squared_error": "squared",
    "absolute_error": "absolute",
    "quantile": "pinball",
    "poisson": "poisson",
}


def measure(name: str, weight: Any = None) -> tuple[float, Tensor]:
    sums = torch.tensor(SUMS, requires_grad=True)
    weight = None if weight is None else torch.as_tensor(weight)
    loss = ALL[name].loss(sums, torch.as_tensor(LABELS[name]), weight)
    loss.backward()
    assert sums.grad is not None
    return loss.item(), sums.grad


@pytest.mark.parametrize("name", ALL)
def test_loss_is_that_of_the_reference(name: str) -> None:
    loss, gradient = measure(name)
    expected, d_sums = reference.LOSSES[NAMES[name]](SUMS, LABELS[name])
    assert loss == pytest.approx(expected, rel=1e-12)
    np.testing.assert_allclose(gradient, d_sums, atol=1e-15)


@pytest.mark.parametrize("name", ALL)
def test_unit_weights_are_none(name: str) -> None:
    loss, gradient = measure(name)
    weighted, weighted_gradient = measure(name, np.ones(30))
    assert weighted == pytest.approx(loss, rel=1e-12)
    np.testing.assert_allclose(weighted_gradient, gradient, atol=1e-15)


@pytest.mark.parametrize("name", ALL)
def test_rows_without_weight_have_no_say(name: str) -> None:
    weight = WEIGHT.copy()
    weight[3:6] = 0
    _, gradient = measure(name, weight)
    assert not gradient[3:6].any()
    assert gradient[6:].all()
    assert measure(name, np.zeros(30))[0] == 0


def test_weighted_losses_are_those_of_scikit_learn() -> None:
    p = torch.tensor(SUMS).softmax(1).numpy()
    expected = log_loss(LABELS["cross_entropy"], p, sample_weight=WEIGHT)
    assert measure("cross_entropy", WEIGHT)[0] == pytest.approx(expected)

    p = torch.tensor(SUMS).sigmoid().numpy()
    expected = sum(
        log_loss(y, q, sample_weight=WEIGHT)
        for y, q in zip(LABELS["logistic"].T, p.T, strict=True)
    )
    assert measure("logistic", WEIGHT)[0] == pytest.approx(expected)

    expected = mean_squared_error(LABELS["squared_error"], SUMS, sample_weight=WEIGHT)
    assert measure("squared_error", WEIGHT)[0] == pytest.approx(expected / 2)


def test_squared_norm() -> None:
    weights = [normal(3, 2).requires_grad_(), normal(4, seed=1).requires_grad_()]
    expected = sum((w**2).sum() for w in weights)
    torch.testing.assert_close(squared_norm(weights), expected)
    assert torch.autograd.gradcheck(lambda *w: squared_norm(w), weights)


def test_squared_norm_of_zero_has_a_gradient() -> None:
    weight = torch.zeros(3, requires_grad=True)
    squared_norm([weight]).backward()
    assert torch.equal(weight.grad, torch.zeros(3))
