"""The ridge solve has the properties of the mathematical object."""

import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from sktarget.linalg import (
    FactorisationError,
    factorise,
    gramian,
    plan_solve,
    prefers_dual,
    ridge_solve,
)
from sktarget.linalg._plan import _plan_unread
from sktarget.linalg._products import _STRIPE, _STRIPE_NUMBERS
from tests.helpers import normal

EPS = {dtype: torch.finfo(dtype).eps for dtype in (torch.float32, torch.float64)}
DTYPES = list(EPS)

shapes = st.tuples(st.integers(1, 12), st.integers(1, 12))
ridges = st.floats(1e-6, 1e3)
seeds = st.integers(0, 1000)


def problem(n: int, k: int, m: int = 3, seed: int = 0) -> tuple[Tensor, Tensor]:
    return normal(n, k, seed=seed), normal(n, m, seed=seed + 1)


def primal(a: Tensor, t: Tensor, lam: float) -> Tensor:
    return factorise(gramian(a), lam).solve(a.T @ t)


def dual(a: Tensor, t: Tensor, lam: float) -> Tensor:
    return a.T @ factorise(gramian(a.T), lam).solve(t)


def badly_scaled(n: int, k: int, dtype: torch.dtype) -> Tensor:
    """Columns over four orders of magnitude, off centre, exact in float32."""
    scales = torch.logspace(-2, 2, k, dtype=torch.float64)
    return ((normal(n, k) + 1) * scales).float().to(dtype)


def low_rank(n: int, k: int, rank: int) -> Tensor:
    return normal(n, rank, seed=4) @ normal(rank, k, seed=5)


# --- The solution ---------------------------------------------------------------------


@given(shapes, ridges, seeds)
def test_primal_equals_dual(shape: tuple[int, int], lam: float, seed: int) -> None:
    a, t = problem(*shape, seed=seed)
    scale = 1 + a.square().sum().item() / lam  # of the rounding, by the condition
    expected = primal(a, t, lam)
    for w in (dual(a, t, lam), ridge_solve(a, t, lam)):
        torch.testing.assert_close(w, expected, rtol=0, atol=1e-14 * scale)


@given(shapes, ridges, seeds)
def test_normal_equations(shape: tuple[int, int], lam: float, seed: int) -> None:
    a, t = problem(*shape, seed=seed)
    w = ridge_solve(a, t, lam)
    residual = a.T @ (a @ w - t) + lam * w
    scale = a.square().sum().item() * (1 + w.abs().max().item())
    # The dual form meets (AAᵀ + λI)Z = T, so Aᵀ times its residual remains, over λ.
    lost = max(1.0, a.square().sum().item() / lam) if prefers_dual(*shape) else 1.0
    assert residual.abs().max() <= 1e-13 * (1 + scale) * lost


@given(shapes, ridges, seeds)
@settings(max_examples=30)
def test_every_row_twice_is_half_the_ridge(
    shape: tuple[int, int], lam: float, seed: int
) -> None:
    a, t = problem(*shape, seed=seed)
    once = ridge_solve(a, t, lam)
    twice = ridge_solve(torch.cat([a, a]), torch.cat([t, t]), 2 * lam)
    scale = 1 + a.square().sum().item() / lam
    torch.testing.assert_close(twice, once, rtol=0, atol=1e-14 * scale)


@pytest.mark.parametrize("shape", [(20, 4), (4, 20)])
def test_order_of_rows_is_of_no_account(shape: tuple[int, int]) -> None:
    a, t = problem(*shape)
    order = torch.randperm(len(a), generator=torch.Generator().manual_seed(0))
    expected = ridge_solve(a, t, 0.1)
    torch.testing.assert_close(ridge_solve(a[order], t[order], 0.1), expected)


@pytest.mark.parametrize("n", [4, 20])
def test_equal_columns_share_the_weight(n: int) -> None:
    a, t = problem(n, 6)
    # A column twice, with λ, is that column once, √2 as large and with √2 the weight.
    w = ridge_solve(torch.cat([a, a[:, :1]], 1), t, 0.1)
    torch.testing.assert_close(w[0], w[-1], rtol=0, atol=1e-13)
    a[:, 0] *= math.sqrt(2)
    torch.testing.assert_close(w[0] * math.sqrt(2), ridge_solve(a, t, 0.1)[0])


# --- Limits of λ ----------------------------------------------------------------------


@pytest.mark.parametrize("lam", [0.0, 1e-13])
@pytest.mark.parametrize("shape", [(30, 5), (5, 30), (6, 6)])
def test_without_ridge_full_rank_gives_the_least_norm(
    shape: tuple[int, int], lam: float
) -> None:
    a, t = problem(*shape, seed=2)
    expected = torch.linalg.pinv(a) @ t
    # The floor of λ, 16 ετ, in proportion to the smallest eigenvalue.
    allowed = 16 * EPS[a.dtype] * (torch.linalg.cond(a) ** 2).item() * min(shape)
    error = torch.dist(ridge_solve(a, t, lam), expected)
    assert error <= 2 * allowed * expected.norm()
    assert allowed < 1e-7


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(60, 20), (20, 60), (400, 250), (250, 400)])
@pytest.mark.parametrize("scale", [1e-12, 1.0, 1e12])
def test_without_ridge_any_rank_is_solved(
    shape: tuple[int, int], scale: float, dtype: torch.dtype
) -> None:
    a = (low_rank(*shape, rank=3) * scale).to(dtype)
    t = (a.double() @ normal(shape[1], 2)).to(dtype)
    w = ridge_solve(a, t, 0.0)
    assert w.dtype == dtype
    assert w.isfinite().all()
    assert torch.dist(a @ w, t) <= 1e-5 * t.norm()


@pytest.mark.parametrize("shape", [(60, 20), (20, 60)])
def test_without_ridge_low_rank_nears_the_least_norm(shape: tuple[int, int]) -> None:
    a, t = low_rank(*shape, rank=3), normal(shape[0], 2)
    expected = torch.linalg.pinv(a, rtol=1e-10) @ t
    # What the rounding of AᵀT leaves in the null space is divided by the floor.
    assert torch.dist(ridge_solve(a, t, 0.0), expected) <= 0.1 * expected.norm()
    fitted = ridge_solve(a, a @ normal(shape[1], 2), 0.0)
    assert torch.dist(a @ fitted, a @ normal(shape[1], 2)) <= 1e-9 * a.norm()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(9, 4), (4, 9)])
@pytest.mark.parametrize("lam", [0.0, 1.0])
def test_zero_inputs_give_zero_weights(
    shape: tuple[int, int], lam: float, dtype: torch.dtype
) -> None:
    t = 100 * normal(shape[0], 2, dtype=dtype)
    w = ridge_solve(torch.zeros(shape, dtype=dtype), t, lam)
    torch.testing.assert_close(w, torch.zeros(shape[1], 2, dtype=dtype))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(20, 4), (4, 20)])
def test_large_ridge_gives_vanishing_weights(
    shape: tuple[int, int], dtype: torch.dtype
) -> None:
    a, t = (value.to(dtype) for value in problem(*shape))
    for lam in (1e9, 1e30):
        torch.testing.assert_close(ridge_solve(a, t, lam) * lam, a.T @ t)


# --- Accuracy -------------------------------------------------------------------------


@pytest.mark.parametrize("lam", [0.0, 1e-12, 1e-8, 1e-4, 1e-2, 1.0, 100.0])
@pytest.mark.parametrize("shape", [(80, 12), (12, 80), (300, 220)])
def test_single_precision_is_as_good_as_double(
    shape: tuple[int, int], lam: float
) -> None:
    a = badly_scaled(*shape, torch.float64)
    t = (a @ normal(shape[1], 2, seed=7)).float().double()
    expected = ridge_solve(a, t, lam)
    w = ridge_solve(a.float(), t.float(), lam)
    assert w.dtype == torch.float32
    # What counts is what the layer gives: the sums.
    error = torch.dist(a @ w.double(), a @ expected)
    assert error <= 50 * EPS[torch.float32] * t.norm()


@pytest.mark.parametrize("lam", [1e-4, 1e-2, 1.0, 100.0, 1e4])
@pytest.mark.parametrize("shape", [(4, 5), (12, 80)])
def test_targets_that_inputs_hardly_tell_apart(
    shape: tuple[int, int], lam: float
) -> None:
    """In the dual form these lead to a huge (AAᵀ + λI)⁻¹T, which must cancel."""
    a, t = badly_scaled(*shape, torch.float64), normal(shape[0], 2, seed=7).float()
    a[1] = a[0]
    # With rows of zeros added the problem is the same, but its primal form is taken.
    zeros = a.new_zeros(shape[1] - shape[0], shape[1])
    t_too = torch.cat([t.double(), zeros[:, :2]])
    expected = ridge_solve(torch.cat([a, zeros]), t_too, lam)
    w = ridge_solve(a.float(), t, lam)
    assert torch.dist(a @ w.double(), a @ expected) <= 2e-4 * t.norm()


@pytest.mark.parametrize("dtype", DTYPES)
def test_plan_has_three_regimes(dtype: torch.dtype) -> None:
    eps, tau = EPS[dtype], 100.0
    trace = torch.tensor(tau, dtype=dtype)
    floor = 16 * EPS[torch.float64] * tau

    wide = plan_solve(trace, 17 * eps * tau, dtype)
    assert (wide.gram_dtype, wide.work_dtype) == (dtype, dtype)
    below = plan_solve(trace, 15 * eps * tau, dtype)
    assert (below.gram_dtype, below.work_dtype) == (torch.float64, dtype)
    tiny = plan_solve(trace, 0.9 * (64 * eps) ** 2 * tau, dtype)
    assert (tiny.gram_dtype, tiny.work_dtype) == (torch.float64, torch.float64)

    # The dual form has two.
    for share, chosen in ((1.01, dtype), (0.99, torch.float64)):
        plan = plan_solve(trace, share * 1024 * eps * tau, dtype, dual=True)
        assert (plan.gram_dtype, plan.work_dtype) == (chosen, chosen)

    assert plan_solve(trace, 0.99 * tau, dtype).below_trace
    assert not plan_solve(trace, 1.01 * tau, dtype).below_trace

    assert plan_solve(trace, 3.5, dtype).ridge == 3.5
    assert plan_solve(trace, 0.0, dtype).ridge == pytest.approx(floor, rel=1e-12)
    assert plan_solve(trace, floor / 2, dtype).ridge == pytest.approx(floor, rel=1e-12)


@pytest.mark.parametrize(
    "dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64]
)
def test_plan_without_reading_the_trace(dtype: torch.dtype) -> None:
    """That of a GPU: of the primal form products stay narrow, if λ is raised to it."""
    tau = torch.tensor(100.0, dtype=dtype)
    plan = _plan_unread(tau, 3.5, dtype)
    assert plan[:2] == (torch.tensor(3.5, dtype=torch.float64), torch.float64)
    work = torch.float64 if dtype == torch.float64 else torch.float32
    assert plan.work_dtype == work
    raised = _plan_unread(tau, 0.0, dtype).ridge
    read = plan_solve(tau.to(work), float(raised) * 1.01, work)
    assert (read.work_dtype, read.ridge) == (work, float(raised) * 1.01)
    dual = _plan_unread(tau, 0.0, dtype, dual=True)
    assert (dual.gram_dtype, dual.work_dtype) == (torch.float64, torch.float64)
    for trace in (tau, torch.zeros_like(tau)):
        dual = _plan_unread(trace, 0.0, dtype, dual=True)
        read = plan_solve(trace.to(work), 0.0, work, dual=True)
        assert float(dual.ridge) == pytest.approx(float(read.ridge), rel=1e-12)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_halves_are_computed_in_single_precision(dtype: torch.dtype) -> None:
    a, t = normal(1000, 100).to(dtype), normal(1000, 3, seed=1).to(dtype)
    tau = a.float().square().sum()
    assert tau > torch.finfo(torch.float16).max
    assert plan_solve(tau, 1.0, dtype) == plan_solve(tau, 1.0, torch.float32)
    expected = ridge_solve(a.double(), t.double(), 1.0)
    found = ridge_solve(a, t, 1.0)
    assert found.dtype == dtype
    error = torch.dist(found.double(), expected) / expected.norm()
    assert error <= torch.finfo(dtype).eps


@pytest.mark.parametrize("lam", [0.0, 1e-9, 1e-3])
def test_unread_plans_are_accurate(lam: float) -> None:
    x = torch.linspace(-1, 1, 300, dtype=torch.float64)
    a, t = torch.stack([x**k for k in range(19)], 1), normal(300, 4)
    plan = _plan_unread(a.square().sum(), lam, torch.float32)
    narrow, right = a.float(), t.float()
    factor = factorise(gramian(narrow, torch.float64), plan.ridge)
    sums = narrow @ factor.solve(narrow.T @ right)
    expected = a @ ridge_solve(narrow.double(), right.double(), float(plan.ridge))
    assert torch.dist(sums.double(), expected) <= 1e-3 * t.norm()


@pytest.mark.parametrize("shape", [(400, 30), (400, 150)])
@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_error_of_an_inverse_in_double_precision_vanishes(
    shape: tuple[int, int], share: float
) -> None:
    a = badly_scaled(*shape, torch.float32)
    t = normal(shape[0], 80, seed=1, dtype=torch.float32)
    tau, eps = a.square().sum(), EPS[torch.float32]
    # From the least ridge for which products are in single precision to the largest
    # for which the factor is in double.
    least, largest = (64 * eps) ** 2 * tau.item(), 16 * eps * tau.item()
    lam = 1.01 * least ** (1 - share) * (0.98 * largest) ** share
    plan = plan_solve(tau, lam, a.dtype)
    assert (plan.gram_dtype, plan.work_dtype) == (torch.float64, torch.float32)
    right, left = a.T @ t, a.double()
    factor = factorise(gramian(a, torch.float64), plan.ridge)
    found = left @ factor.solve(right).double()
    expected = left @ factor.solve(right.double())
    assert "inverse" in vars(factor)
    allowed = 0.5 * eps * (tau.item() / lam) ** 0.5  # of the right-hand sides
    assert torch.dist(found, expected) <= (0.01 * allowed + 4 * eps) * t.norm()


# --- Gramian and factor ---------------------------------------------------------------


@pytest.mark.parametrize(
    "k", [1, _STRIPE - 1, _STRIPE, _STRIPE + 1, 2 * _STRIPE, 2 * _STRIPE + 1, 500]
)
@pytest.mark.parametrize("ones", [False, True])
def test_gramian_across_the_boundaries_of_blocks(k: int, ones: bool) -> None:
    n = _STRIPE_NUMBERS // k + 1  # with fewer rows there would be no blocks
    rows = normal(n, k)
    explicit = torch.cat([torch.ones(n, 1), rows], 1) if ones else rows
    gram = gramian(rows, ones=ones)
    torch.testing.assert_close(gram.tril(), (explicit.T @ explicit).tril())


def test_gramian_in_other_arithmetic() -> None:
    rows = normal(50, 3, dtype=torch.float32)
    gram = gramian(rows, torch.float64, ones=True)
    explicit = torch.cat([torch.ones(50, 1), rows], 1).double()
    assert gram.dtype == torch.float64
    torch.testing.assert_close(
        gram.tril(), (explicit.T @ explicit).tril(), rtol=0, atol=1e-13
    )


@pytest.mark.parametrize("n", [200, 1000, 30_000, 100_000])
@pytest.mark.parametrize("k", [1, 5, 11, 12, 40, 100])
@pytest.mark.parametrize("ones", [False, True])
def test_rounding_of_a_gramian_stays_below_the_smallest_ridge(
    n: int, k: int, ones: bool
) -> None:
    rows = torch.full((n, k), 0.1, dtype=torch.float32)  # All errors have one sign.
    found, exact = (
        torch.tril(gramian(rows, dtype, ones=ones).double())
        for dtype in (torch.float32, torch.float64)
    )
    error = (found - exact) + (found - exact).tril(-1).T
    eps, trace = torch.finfo(torch.float32).eps, exact.trace()
    assert torch.linalg.eigvalsh(error).abs().max() < 16 * eps * trace


def test_many_rows_of_few_like_columns_have_a_solution() -> None:
    rows = torch.full((30_000, 4), 0.1, dtype=torch.float32)
    tau = float(rows.square().sum())
    lam = 17 * torch.finfo(rows.dtype).eps * tau
    weights = ridge_solve(rows, torch.ones(30_000, 2), lam)
    # How it is shared out among columns that are one is rounding.  The sums are not.
    expected = torch.full((2,), tau / (tau + lam))
    torch.testing.assert_close(rows[0] @ weights, expected, rtol=1e-4, atol=0)


def test_factor_reads_the_lower_triangle_only() -> None:
    gram = gramian(normal(9, 4))
    expected = factorise(gram.clone(), 0.1).solve(normal(4, 2))
    gram += torch.full((4, 4), 1e9).triu(1)
    torch.testing.assert_close(factorise(gram, 0.1).solve(normal(4, 2)), expected)


def test_factor_once_solve_many() -> None:
    a = normal(30, 5)
    system = a.T @ a + 0.3 * torch.eye(5)
    factor = factorise(gramian(a), 0.3)
    for seed in range(3):
        right = normal(5, 2, seed=seed)
        torch.testing.assert_close(system @ factor.solve(right), right)
    right = normal(5, 2, dtype=torch.float32)
    solution = factor.solve(right)
    assert solution.dtype == torch.float32
    torch.testing.assert_close(solution, factor.solve(right.double()).float())


@pytest.mark.parametrize("k", [1, 15, 16, 32, 33, 192, 193, 300])
@pytest.mark.parametrize("problems", [(), (2,)], ids=["one", "two at once"])
def test_many_right_hand_sides(k: int, problems: tuple[int, ...]) -> None:
    rows = normal(*problems, k + 5, k)
    gram = rows.mT @ rows
    right = normal(*problems, k, k, seed=1)
    solved = factorise(gram.clone(), 2.0).solve(right)
    torch.testing.assert_close((gram + 2.0 * torch.eye(k)) @ solved, right)
    for m in {1, max(1, k // 4)}:
        few = factorise(gram.clone(), 2.0).solve(right[..., :m])
        torch.testing.assert_close(few, solved[..., :m])


# --- Errors ---------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(9, 4), (4, 9)])
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_inputs_that_are_not_finite(
    value: float, shape: tuple[int, int], dtype: torch.dtype
) -> None:
    a, t = (v.to(dtype) for v in problem(*shape))
    a[1, 2] = value
    with pytest.raises(FactorisationError, match=r"trace of the Gramian is (nan|inf)"):
        ridge_solve(a, t, 0.1)


@pytest.mark.parametrize(
    "matrix", [lambda: -torch.eye(3), lambda: torch.full((3, 3), math.nan)]
)
def test_matrix_without_factor(matrix: Callable[[], Tensor]) -> None:
    with pytest.raises(FactorisationError, match="has no Cholesky factor"):
        factorise(matrix(), 0.5)


@pytest.mark.parametrize("lam", [-1e-9, -math.inf, math.inf, math.nan])
def test_bad_ridge(lam: float) -> None:
    with pytest.raises(ValueError, match="lam must be finite and at least 0, got"):
        ridge_solve(*problem(4, 3), lam=lam)


def test_ridge_is_finite_in_the_dtype() -> None:
    a, t = problem(4, 3)
    assert ridge_solve(a, t, 1e39).isfinite().all()
    with pytest.raises(ValueError, match=r"lam must be finite .*1e\+39.* 3.4e\+38"):
        ridge_solve(a.float(), t.float(), 1e39)


def test_what_is_no_ridge_problem() -> None:
    a, t = problem(4, 3)
    with pytest.raises(ValueError, match=r"targets must have two axes, got.*\(4,\): t"):
        ridge_solve(a, t[:, 0], 1.0)
    with pytest.raises(ValueError, match=r"rows must have two axes, got.*\(2, 4, 3\)"):
        ridge_solve(torch.stack([a, a]), t, 1.0)
    with pytest.raises(ValueError, match="must be as many, got 4 and 3: give"):
        ridge_solve(a, t[:3], 1.0)
    with pytest.raises(ValueError, match=r"rows must be floating.*int64: rows.float"):
        ridge_solve(a.long(), t, 1.0)


@pytest.mark.parametrize(("n", "k", "expected"), [(3, 4, True), (4, 4, False)])
def test_smaller_system_is_preferred(n: int, k: int, expected: bool) -> None:
    assert prefers_dual(n, k) is expected


@pytest.mark.parametrize("ones", [False, True])
@pytest.mark.parametrize("n_columns", [5, 120])
def test_gramians_have_gradients(n_columns: int, ones: bool) -> None:
    a = normal(400, n_columns).requires_grad_()
    c = normal(n_columns + ones, n_columns + ones, seed=1).tril()
    gramian(a, ones=ones).tril().mul(c).sum().backward()
    full = torch.cat([torch.ones(400, 1), a.detach()], 1) if ones else a.detach()
    expected = full @ (c + c.T)
    torch.testing.assert_close(a.grad, expected[:, int(ones) :])


@pytest.mark.parametrize("shape", [(200, 120), (120, 200)])
def test_ridge_solutions_have_gradients(shape: tuple[int, int]) -> None:
    a, t, c = normal(*shape), normal(shape[0], 3, seed=1), normal(shape[1], 3, seed=2)
    w = ridge_solve(a.requires_grad_(), t, 0.5)
    (d,) = torch.autograd.grad((w * c).sum(), [a])
    step = normal(*shape, seed=3)
    h = 1e-5
    with torch.no_grad():
        up, down = (ridge_solve(a + s * h * step, t, 0.5) for s in (1, -1))
    slope = ((up - down) * c).sum() / (2 * h)
    torch.testing.assert_close((d * step).sum(), slope, rtol=1e-6, atol=1e-9)
