"""Recurrent layers in target space (Sec. 4.1, Algs. 4 and 5)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.rnn import PackedSequence

from sktarget._blank import make_blank
from sktarget._packing import Packing
from sktarget.nn._cells import States, cell_of
from sktarget.nn._direction import TargetDirection
from sktarget.nn._kernels import run_kernel
from sktarget.nn._pass import NotThisBatch, Pass, Phase
from sktarget.nn._registry import register
from sktarget.nn._sequences import last_steps
from sktarget.nn._stand_in import StandIn
from sktarget.nn._steps import may_run_steps, run_steps
from sktarget.nn._target_map import TargetMap

__all__ = ["TargetRecurrent"]

Sequences = Tensor | PackedSequence


def _has_no_projection(layer: nn.RNNBase) -> bool:
    return layer.proj_size == 0


@register(nn.GRU)
@register(nn.LSTM, accepts=_has_no_projection)
@register(nn.RNN)
class TargetRecurrent(StandIn):
    """A recurrent module whose weights meet its targets on X̄ (Alg. 5).

    Layer by layer and direction by direction it solves one ridge regression over all
    steps of X̄, with the context estimated from the targets; then the layer actually
    runs (line 10 of Alg. 5), and these outputs go to the next one.

    Parameters
    ----------
    layer : nn.RNN, nn.LSTM or nn.GRU
        The module to stand in for; the targets start from its weights.
    name : str
        Path of the module in the wrapped one.
    """

    def __init__(self, layer: nn.RNNBase, name: str) -> None:
        super().__init__()
        self.name = name
        self.batch_first, self.dropout = layer.batch_first, layer.dropout
        self.num_layers, self.bidirectional = layer.num_layers, layer.bidirectional
        self._kind, self._options = type(layer), _options(layer)
        n_directions = 2 if layer.bidirectional else 1
        for k, flat in enumerate(layer.all_weights):
            level, backwards = divmod(k, n_directions)
            cell = cell_of(layer, flat[0].shape[1])
            part = f"l{level}_reverse" if backwards else f"l{level}"
            path = f"{name}.{part}" if name else part
            self.add_module(part, TargetDirection(cell, flat, bool(backwards), path))

    @property
    def is_random(self) -> bool:  # type: ignore[override]
        """Whether there is dropout between the layers."""
        return self.training and self.dropout > 0 and self.num_layers > 1

    def target_maps(self) -> dict[str, TargetMap]:
        """Return the directions of all layers."""
        return {direction.name: direction for direction in self._directions()}

    def _directions(self) -> list[TargetDirection]:
        return [m for m in self.children() if isinstance(m, TargetDirection)]

    # -- running ---------------------------------------------------------------------

    def forward(
        self, input: Sequences, hx: Any = None
    ) -> tuple[Sequences, Tensor | States]:
        """Return outputs of all steps, and last states, as the ordinary module does.

        A second call within a pass applies the weights that the first one solved for.
        """
        device = input.data.device.type
        if torch.is_autocast_enabled(device):
            with torch.autocast(device, enabled=False):
                return self.forward(
                    input.to(self._directions()[0].kept_weight.dtype), hx
                )
        states = () if hx is None else hx if isinstance(hx, tuple) else (hx,)
        if any(state.requires_grad or bool(state.any()) for state in states):
            raise ValueError(
                "a recurrent layer in target space starts from zero: no initial state "
                "belongs to X̄, and none is learnt. Leave hx out, give zeros, or leave "
                "the layer in weight space, by TargetSpace(..., in_weight_space="
                f"[{self.name!r}])"
            )
        inputs, time_first = input, isinstance(input, Tensor) and not self.batch_first
        if isinstance(inputs, Tensor):
            inputs = _checked(inputs.transpose(0, 1) if time_first else inputs)
        outputs, states = self._dispatch(inputs)
        if time_first and isinstance(outputs, Tensor):
            outputs = outputs.transpose(0, 1).contiguous()  # like torch's
        return outputs, states if len(states) > 1 else states[0]

    def flatten_parameters(self) -> None:
        """Do nothing; some modules call this on their recurrent layers."""

    def _dispatch(self, inputs: Sequences) -> tuple[Sequences, States]:
        """Apply weights where there are any; solve for them where there are none."""
        directions = self._directions()
        current, first = directions[0].stage.current, directions[0].name
        kept = [d.kept_weight for d in directions]
        if current is None:
            self.refuse_to_learn_nothing()
            return self._run(inputs, directions, kept)
        if current.phase is Phase.APPLY or first in current.weights:
            matrices = [current.weights_of(d.name) for d in directions]
            return self._run(inputs, directions, matrices)
        if first in current.order:  # A second run while own weights are applied.
            return self._run(inputs, directions, kept)
        if current.phase is Phase.RECORD:
            self.stacks = self.batch_first and isinstance(inputs, Tensor)
        return self._cascade(inputs, current)

    def _cascade(self, inputs: Sequences, current: Pass) -> tuple[Sequences, States]:
        """Solve for and run one layer after another."""
        packing, directions = Packing.of(inputs), self._directions()
        if current.phase in (Phase.SOLVE, Phase.COMPARE):
            lengths = packing.lengths
            n_sequences = len(inputs.data) if lengths is None else len(lengths)
            directions[0].refuse_other_rows(n_sequences, current)
            if lengths is not None and n_sequences != len(directions[0].targets):
                raise NotThisBatch  # Others were packed together with those of X̄.
        x, last = packing.pad(inputs), []
        width = 1 + self.bidirectional
        for start in range(0, len(directions), width):
            if start > 0:
                x = F.dropout(x, self.dropout, self.training)
            layer = directions[start : start + width]
            x, states = self._layer(layer, x, packing, current)
            last.append(states)
        return packing.pack(x), tuple(map(torch.cat, zip(*last, strict=True)))

    def _layer(
        self, layer: list[TargetDirection], x: Tensor, packing: Packing, current: Pass
    ) -> tuple[Tensor, States]:
        """Solve for the directions of a layer on the rows of X̄; run it on all rows."""
        lengths = packing.lengths
        if not current.solves:
            matrices, estimates = [d.kept_weight for d in layer], []
        else:
            solved = [d.solve(x[: len(d.targets)], lengths) for d in layer]
            matrices, estimates = map(list, zip(*solved, strict=True))
        for d, matrix in zip(layer, matrices, strict=True):
            current.enter(d.name)
            if current.solves:
                current.weights[d.name] = matrix
        if current.optimistic and current.phase is Phase.SOLVE:
            return self._optimistic(layer, x, lengths, matrices, estimates)
        outputs, last = self._run(packing.pack(x), layer, matrices)
        h = packing.pad(outputs)
        if current.phase is not Phase.SOLVE:
            own = h.chunk(len(layer), -1)
            for d, part, matrix in zip(layer, own, matrices, strict=True):
                d.note_sums(d.sums(x, part, matrix, lengths), current.phase)
        return h, last

    def _optimistic(
        self,
        layer: list[TargetDirection],
        x: Tensor,
        lengths: Tensor | None,
        matrices: list[Tensor],
        estimates: list[States],
    ) -> tuple[Tensor, States]:
        """Pass on, for X̄, what the targets lead to (full OCU); run the other rows."""
        in_time = [
            d.in_order(states[0], lengths)
            for d, states in zip(layer, estimates, strict=True)
        ]
        h = torch.cat(in_time, dim=-1)
        last = tuple(
            torch.stack([last_steps(states, lengths) for states in kind])
            for kind in zip(*estimates, strict=True)
        )
        if len(x) == len(h):
            return h, last
        others, ends = self._run(x[len(h) :], layer, matrices)
        assert isinstance(others, Tensor)  # Packed sequences are never stacked.
        pairs = zip(last, ends, strict=True)
        return torch.cat([h, others]), tuple(torch.cat(pair, 1) for pair in pairs)

    def _run(
        self,
        inputs: Sequences,
        directions: list[TargetDirection],
        matrices: list[Tensor],
    ) -> tuple[Sequences, States]:
        """Run one layer, or the whole stack, with given weights."""
        cells = [d.cell for d in directions]
        options = self.dropout if self.training else 0.0, self.bidirectional
        by_steps = may_run_steps(cells[0], inputs.data.device)
        run = run_steps if by_steps else run_kernel
        return run(cells, matrices, inputs, *options)

    # -- realisation -----------------------------------------------------------------

    def realise(self) -> nn.RNNBase:
        """Make the ordinary module with the cached weights as its parameters."""
        directions = self._directions()
        layer = make_blank(self._kind, **self._options, device="meta")
        layer.to(directions[0].kept_weight.dtype)
        for names, d in zip(layer._all_weights, directions, strict=True):
            for name, value in zip(
                names, d.cell.from_matrix(d.kept_weight), strict=True
            ):
                setattr(layer, name, nn.Parameter(value.detach().clone()))
        layer.flatten_parameters()
        return layer

    def extra_repr(self) -> str:
        """Show the first two arguments that the ordinary module shows."""
        return f"{self._options['input_size']}, {self._options['hidden_size']}"


def _options(layer: nn.RNNBase) -> dict[str, Any]:
    """Read the arguments with which the ordinary module was made."""
    names = ["input_size", "hidden_size", "num_layers", "bias"]
    names += ["batch_first", "dropout", "bidirectional"]
    if isinstance(layer, nn.RNN):
        names.append("nonlinearity")
    return {name: getattr(layer, name) for name in names}


def _checked(inputs: Tensor) -> Tensor:
    if inputs.ndim != 3 or 0 in inputs.shape[:2]:
        raise ValueError(
            "a recurrent layer in target space takes a batch of sequences, with three "
            "axes, at least one sequence and at least one step, got shape "
            f"{tuple(inputs.shape)}"
        )
    return inputs
