"""Modules that do what few do, and networks that are made where few are."""

from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from sktarget import TargetSpaceRegressor
from sktarget.export import to_torch
from sktarget.nn import TargetSpace
from tests.estimators.support import curve_data, fit_quietly


class Silent(nn.Module):
    """A network whose method `train` returns nothing, as many that freeze parts."""

    def __init__(self, n_inputs: int = 3, n_outputs: int = 2) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(n_inputs, 5), nn.Tanh(), nn.Linear(5, n_outputs)
        )

    def train(self, mode: bool = True) -> None:  # type: ignore[override]
        super().train(mode)

    def forward(self, x: Tensor) -> Any:
        return self.layers(x)


def test_train_may_return_nothing() -> None:
    net, x = TargetSpace(Silent(), torch.randn(20, 3)), torch.randn(4, 3)
    net(x).sum().backward()
    torch.testing.assert_close(net.realise()(x), net(x))


def test_estimators_take_modules_whose_train_returns_nothing() -> None:
    X, y = curve_data()
    estimator = TargetSpaceRegressor(module=Silent, max_iter=2, warm_start=True)
    fit_quietly(fit_quietly(estimator, X, y), X, y)
    assert estimator.predict(X).shape == y.shape
    assert isinstance(to_torch(estimator), nn.Module)


# --- Inference mode -------------------------------------------------------------------


@pytest.mark.parametrize("made_in_inference_mode", [False, True])
def test_loading_renews_weights(made_in_inference_mode: bool) -> None:
    fixed, x = torch.randn(20, 3), torch.randn(4, 3)
    with torch.inference_mode(made_in_inference_mode):
        net = TargetSpace(nn.Linear(3, 2).eval(), fixed)
        other = TargetSpace(nn.Linear(3, 2).eval(), fixed)
        assert not torch.allclose(net(x), other(x), atol=1e-3)
        net.load_state_dict(other.state_dict())
        torch.testing.assert_close(net(x), other(x))


def test_training_goes_on_from_what_was_loaded_in_inference_mode() -> None:
    net, other = (TargetSpace(nn.Linear(3, 2), torch.randn(20, 3)) for _ in range(2))
    with torch.inference_mode():
        net.load_state_dict(other.state_dict())
    torch.testing.assert_close(net.fixed_batch, other.fixed_batch)
    for _ in range(2):
        net(torch.randn(4, 3)).sum().backward()
    assert all(p.grad is not None for p in net.parameters())


@pytest.mark.parametrize("width", [4, 200])
def test_a_fixed_batch_made_in_inference_mode_serves_training(width: int) -> None:
    with torch.inference_mode():
        fixed = torch.randn(20, width)
    module = nn.Sequential(nn.Linear(width, 5), nn.Tanh(), nn.Linear(5, 2))
    net = TargetSpace(module, fixed, 0.1)
    for _ in range(2):
        net(torch.randn(4, width)).sum().backward()
    assert all(p.grad is not None for p in net.parameters())


# --- Layers that torch, or a module, reads instead of calling -------------------------


@pytest.mark.parametrize("whole", [False, True])
def test_weights_of_encoders_in_evaluation(whole: bool) -> None:
    layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True)
    layer.self_attn.requires_grad_(False)
    given = nn.TransformerEncoder(layer, 2) if whole else layer
    net = TargetSpace(
        nn.Sequential(given, nn.Linear(8, 1)), torch.randn(20, 5, 8), 0.1
    ).eval()
    x = torch.randn(4, 5, 8)
    with torch.no_grad():
        outputs, matrices = net.forward_with_weights(x)
    assert len(matrices) == len(net.target_layers())
    torch.testing.assert_close(outputs, net(x), rtol=1e-3, atol=1e-4)


def test_weights_can_be_viewed_within_a_pass() -> None:
    class Penalised(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(3, 2)
            self.size = torch.zeros(())

        def forward(self, x: Tensor) -> Any:
            out = self.layer(x)
            self.size = self.layer.weight.view(-1).square().sum()
            return out

    net = TargetSpace(Penalised(), torch.randn(20, 3), 0.1)
    net(torch.randn(4, 3))
    net.module.size.backward()
    assert all(p.grad.abs().max() > 0 for p in net.parameters())


@pytest.mark.parametrize("kind", [nn.RNN, nn.LSTM, nn.GRU])
def test_outputs_with_time_first_can_be_viewed(kind: Any) -> None:
    class Flat(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.recurrent, self.out = kind(3, 4), nn.Linear(4, 2)

        def forward(self, x: Tensor) -> Any:
            return self.out(self.recurrent(x)[0].view(-1, 4))

    net, x = TargetSpace(Flat(), torch.randn(6, 20, 3)), torch.randn(6, 5, 3)
    outputs = net(x)
    outputs.sum().backward()
    torch.testing.assert_close(net.realise()(x), outputs.detach(), rtol=1e-3, atol=1e-4)


# --- What layers carry along ----------------------------------------------------------


def test_a_compiled_layer_is_not_what_realising_runs() -> None:
    layer = nn.Linear(3, 2)
    layer.compile(backend="eager")
    net, x = TargetSpace(nn.Sequential(layer), torch.randn(20, 3)), torch.randn(4, 3)
    with torch.no_grad():
        next(iter(net.target_layers().values())).targets.add_(1)
    torch.testing.assert_close(net.realise()(x), net.eval()(x))
    assert not torch.allclose(net(x), layer(x), atol=0.1)


def test_partial_hooks_become_those_of_the_copy() -> None:
    class Recording(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer, self.act = nn.Linear(3, 2), nn.Tanh()
            self.seen: dict[str, Tensor] = {}
            for name in ("layer", "act"):
                hook = partial(self.note, name)
                getattr(self, name).register_forward_hook(hook)

        def note(self, name: str, _: nn.Module, inputs: Any, out: Tensor) -> None:
            self.seen[name] = out

        def forward(self, x: Tensor) -> Any:
            return self.act(self.layer(x))

    given = Recording()
    net = TargetSpace(given, torch.randn(20, 3))
    net(torch.randn(4, 3))
    assert given.seen == {}
    assert set(net.module.seen) == {"layer", "act"}


def test_attributes_of_any_name_stay() -> None:
    layer = nn.Linear(3, 2)
    layer.input_units = 5  # type: ignore[assignment]
    net = TargetSpace(layer, torch.randn(20, 3))
    net(torch.randn(4, 3)).sum().backward()
    assert net.realise().input_units == 5


# --- Layers that cannot learn, or have nothing to learn -------------------------------


def test_complex_layers_stay_in_weight_space() -> None:
    class Spectral(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.mix = nn.Linear(3, 3, dtype=torch.complex64)
            self.out = nn.Linear(4, 1)

        def forward(self, x: Tensor) -> Any:
            return self.out(torch.fft.irfft(self.mix(torch.fft.rfft(x)), n=4))

    with pytest.warns(UserWarning, match="mix .*whose weights are complex"):
        net = TargetSpace(Spectral(), torch.randn(20, 4))
    net(torch.randn(5, 4)).sum().backward()
    assert net.module.mix.weight.grad.abs().max() > 0


def test_layers_without_inputs_or_outputs() -> None:
    x = torch.randn(20, 3)
    with pytest.warns(UserWarning, match="zero-element"):
        no_outputs, no_inputs = nn.Linear(3, 0), nn.Linear(0, 2, bias=False)
    assert TargetSpace(no_outputs, x)(x[:4]).shape == (4, 0)
    assert TargetSpace(no_inputs, x[:, :0]).choose_lam().lam == 0.0


def test_instance_normalisation_with_running_statistics() -> None:
    norm = nn.InstanceNorm2d(2, track_running_stats=True)
    module = nn.Sequential(nn.Conv2d(1, 2, 3), norm, nn.Flatten(), nn.Linear(32, 2))
    with torch.no_grad():
        module[0].weight.fill_(0.1)
        module[0].bias.zero_()
    fixed = 5 + torch.randn(30, 1, 6, 6)
    net = TargetSpace(module, fixed, 0.1)
    for _ in range(5):
        _, matrices = net.forward_with_weights(torch.randn(8, 1, 6, 6))
    trained = net.realise()
    torch.testing.assert_close(
        trained[3].weight, matrices[1].detach().T, rtol=1e-4, atol=1e-5
    )
    # Statistics are of the batches alone, around 0; on X̄ sums are about 5 × 9 × 0.1.
    assert trained[1].running_mean.abs().max() < 0.4
    assert net.module[1].running_mean is not None


# --- Messages -------------------------------------------------------------------------


def test_a_recurrent_layer_with_a_state_is_named() -> None:
    class WithState(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.recurrent = nn.GRU(3, 4, batch_first=True)

        def forward(self, x: Tensor) -> Any:
            return self.recurrent(x, torch.ones(1, len(x), 4))[0]

    with pytest.raises(ValueError, match=r"in_weight_space=\['recurrent'\]"):
        TargetSpace(WithState(), torch.randn(20, 5, 3))


def test_targets_for_other_rows_are_refused() -> None:
    class Picks(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.score, self.out = nn.Linear(3, 1), nn.Linear(3, 2)

        def forward(self, x: Tensor) -> Any:
            return self.out(x[self.score(x)[:, 0] > 0])

    net = TargetSpace(Picks(), torch.randn(20, 3))
    with pytest.raises(RuntimeError, match=r"layer 'out' is fed .* rows"):
        net.reset_targets()


@pytest.mark.parametrize("n_draws", [2.5, "3"])
def test_draws_have_to_be_a_number(n_draws: Any) -> None:
    module = nn.Sequential(nn.Linear(3, 2), nn.Dropout(0.5))
    net = TargetSpace(module, torch.randn(20, 3))
    with pytest.raises(TypeError, match=r"n_draws must be an integer.*got"):
        net.average_weights(n_draws)
    assert net.training
