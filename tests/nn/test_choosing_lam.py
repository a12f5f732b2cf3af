"""λ chosen by the scale of what it is added to: the mean eigenvalue of the Gramian."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from sktarget.linalg import FactorisationError
from sktarget.nn import TargetSpace
from tests.helpers import (
    Residual,
    assert_all_close,
    move_targets,
    normal,
    perceptron,
    seeded,
    set_targets,
    targets_of,
)
from tests.reference import Array, patches

LAYERS: dict[str, tuple[nn.Module, tuple[int, ...]]] = {
    "more rows than columns": (nn.Linear(3, 2), (20, 3)),
    "more columns than rows": (nn.Linear(30, 2), (7, 30)),
    "no bias": (nn.Linear(3, 2, bias=False), (20, 3)),
    "same convolution": (nn.Conv2d(2, 4, 3, padding=1), (9, 2, 6, 5)),
    "strided convolution": (nn.Conv1d(4, 3, 5, stride=2), (9, 4, 15)),
    "few patches": (nn.Conv1d(8, 3, 5, stride=2), (2, 8, 9)),
}


with_layers = pytest.mark.parametrize("name", LAYERS)


def design_matrix(layer: nn.Module, inputs: Tensor) -> Array:
    """Write out the matrix whose product with the weights gives a layer's sums."""
    rows = inputs.numpy()
    if isinstance(layer, nn.Conv1d | nn.Conv2d):
        padding = tuple((int(p), int(p)) for p in layer.padding)
        rows = patches(rows, layer.kernel_size, layer.stride, padding, layer.dilation)
    return np.hstack([np.ones((len(rows), int(layer.bias is not None))), rows])


def mean_eigenvalue(layer: nn.Module, inputs: Tensor) -> float:
    """Take the mean of all eigenvalues of the smaller of the two Gramians."""
    a = design_matrix(layer, inputs)
    gram = a.T @ a if a.shape[0] >= a.shape[1] else a @ a.T
    return float(np.linalg.eigvalsh(gram).mean())


@with_layers
def test_one_layer(name: str) -> None:
    layer, shape = LAYERS[name]
    layer, fixed = seeded(layer).double(), normal(*shape)
    chosen = TargetSpace(layer, fixed).choose_lam().lam
    assert chosen == pytest.approx(mean_eigenvalue(layer, fixed), rel=1e-9)


@with_layers
@pytest.mark.parametrize("most", [0.5, 10.0])
@pytest.mark.parametrize("mean", [0.0, 7.0])
def test_means_of_inputs_may_be_left_out(name: str, most: float, mean: float) -> None:
    layer, shape = LAYERS[name]
    layer, fixed = seeded(layer).double(), mean + normal(*shape)
    a = design_matrix(layer, fixed)
    varying = a - a.mean(axis=0)
    bound = most * (varying**2).sum() / min(a.shape)
    if layer.bias is None and len(a) >= a.shape[1]:
        bound = np.inf  # The Gramian does not tell the means.
    chosen = TargetSpace(layer, fixed).choose_lam(most).lam
    assert chosen == pytest.approx(min(mean_eigenvalue(layer, fixed), bound), rel=1e-9)


def test_wrong_bound() -> None:
    net = TargetSpace(nn.Linear(3, 2), normal(20, 3).float())
    with pytest.raises(ValueError, match=r"most must be positive, got 0\.0"):
        net.choose_lam(0.0)


def test_groups_share_one() -> None:
    layer, fixed = nn.Conv1d(4, 6, 3, groups=2).double(), normal(9, 4, 15)
    one = nn.Conv1d(2, 3, 3).double()
    each = [mean_eigenvalue(one, part) for part in fixed.chunk(2, 1)]
    chosen = TargetSpace(layer, fixed).choose_lam().lam
    assert chosen == pytest.approx(np.mean(each), rel=1e-9)


@pytest.mark.parametrize("untangling", ["scu", "ocu"])
def test_a_layer_reads_what_those_before_it_give_with_their_own(
    untangling: str,
) -> None:
    fixed = normal(20, 3)
    net = TargetSpace(perceptron(), fixed, 1e-3, untangling)
    move_targets(net)
    before = targets_of(net)
    assert net.choose_lam() is net
    first, act, last = net.realise()
    sums = first(fixed) if untangling == "scu" else before[0]
    expected = mean_eigenvalue(first, fixed), mean_eigenvalue(last, act(sums).detach())
    assert net.lam == pytest.approx(expected, rel=1e-9)
    assert_all_close(targets_of(net), before, 0.0)


@pytest.mark.parametrize("kind", [nn.RNN, nn.LSTM, nn.GRU])
def test_recurrent_layers_have_one_as_well(kind: type) -> None:
    fixed = normal(12, 5, 3)
    net = TargetSpace(seeded(kind(3, 4, batch_first=True)).double(), fixed)
    small = float(net.choose_lam().lam)  # type: ignore[arg-type]
    # The inputs are part of every row, beside the state and the ones.
    squares = fixed.square().sum().item() + 60
    assert squares / 8 < small < (squares + 60 * 4) / 8
    larger = TargetSpace(net.realise(), 10 * fixed).choose_lam().lam
    assert larger > 20 * small


class Gated(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.gru = nn.GRU(3, 4, batch_first=True)
        self.exit = nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.exit(self.gru(x)[0][:, -1])


def test_the_three_maps_of_a_gru_are_solved_for_with_the_same() -> None:
    fixed = normal(12, 5, 3)
    module = seeded(Gated()).double()
    net = TargetSpace(module, fixed, 1e-3)
    before = net(fixed).detach()
    net.choose_lam()
    explicit = TargetSpace(module, fixed, net.lam)
    assert_all_close([net(fixed)], [explicit(fixed)], 1e-12)
    assert not torch.allclose(net(fixed), before, atol=1e-3)
    states = net.realise().gru(fixed)[0][:, -1].detach()
    # The exit chose for the states that it now gets.
    assert net.lam[1] == pytest.approx(mean_eigenvalue(module.exit, states), rel=1e-9)


def test_it_is_that_of_an_explicit_one() -> None:
    module, fixed, x = perceptron(), normal(20, 3), normal(5, 3, seed=1)
    net = TargetSpace(module, fixed, 1e-3)
    net(x)  # The factor of the first layer is kept from here.
    chosen = net.choose_lam().lam
    explicit = TargetSpace(module, fixed, chosen)
    assert_all_close([net(x)], [explicit(x)], 1e-12)
    assert_all_close(net.realise().parameters(), explicit.realise().parameters(), 1e-12)


def test_it_does_not_depend_on_the_one_before() -> None:
    nets = [TargetSpace(perceptron(), normal(20, 3), lam) for lam in (0.0, 1e6)]
    first, second = (net.choose_lam().choose_lam().lam for net in nets)
    assert first == pytest.approx(second, rel=1e-12)


def test_dropout_is_off_and_the_mode_stays() -> None:
    module = perceptron(act=nn.Sequential(nn.Tanh(), nn.Dropout(0.5)))
    plain = perceptron(act=nn.Sequential(nn.Tanh()))
    nets = [TargetSpace(m, normal(20, 3)).train() for m in (module, plain)]
    chosen, expected = (net.choose_lam().lam for net in nets)
    assert chosen == pytest.approx(expected, rel=1e-12)
    assert nets[0].training
    assert nets[0].is_random


def test_several_outputs() -> None:
    net = TargetSpace(Residual(3, 5, 2, heads=2).double(), normal(20, 3)).choose_lam()
    heads = net.lam[-2:]  # type: ignore[index]
    assert len(set(heads)) == 1
    assert min(net.lam) > 0  # type: ignore[arg-type]


def test_single_precision_suffices_for_it() -> None:
    module = perceptron(50, 70, dtype=torch.float32)
    net = TargetSpace(module, normal(400, 50, dtype=torch.float32)).choose_lam()
    net(normal(5, 50, dtype=torch.float32))
    dtypes = [layer._last_dtype for layer in net.target_layers().values()]
    assert dtypes == [torch.float32] * len(dtypes)


def test_inputs_that_are_not_finite() -> None:
    net = TargetSpace(perceptron(), normal(20, 3), [1.0, 2.0])
    set_targets(net, [torch.full((20, 6), torch.nan), targets_of(net)[1]])
    with pytest.raises(FactorisationError, match="layer '2' could not be solved"):
        net.choose_lam()
    assert net.lam == (1.0, 2.0)
