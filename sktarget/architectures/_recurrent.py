"""Recurrent networks with exit layers, on sequences of unequal lengths."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from sktarget._blank import make_blank
from sktarget._packing import Packing
from sktarget.architectures._dense import DenseNetwork
from sktarget.architectures._dropout import SeededDropout
from sktarget.architectures._initialisation import initialise_cell_

__all__ = ["CELLS", "RecurrentNetwork"]

CELLS: dict[str, type[nn.RNNBase]] = {"rnn": nn.RNN, "lstm": nn.LSTM, "gru": nn.GRU}
"""Recurrent modules by their names in the estimators."""

_EMBEDDING_DEVIATION = 0.1


class RecurrentNetwork(nn.Module):
    """Recurrent layers and exit layers, optionally after an embedding of token ids.

    Padding comes after the steps of a sequence: token ids of 0, or steps of NaN.  It
    affects no output: the exit layers are given real steps only, and the recurrent
    layers packed sequences wherever padding would matter.

    Parameters
    ----------
    n_inputs : int
        Channels of a sequence; not used with token ids.
    recurrent_layer_sizes : sequence of int
        Widths of the recurrent layers, at least one.
    hidden_layer_sizes : sequence of int
        Widths of the hidden exit layers.
    n_outputs : int
        Number of outputs; they are the bare sums of the last layer.
    cell : {"rnn", "lstm", "gru"}
        Kind of the recurrent layers.
    activation : str
        Activation of the exit layers, a key of ``ACTIVATIONS``; with ``cell="rnn"``
        also that of the recurrent layers, and then "tanh" or "relu".
    bidirectional : bool, default=False
        Run every recurrent layer in both directions.
    return_sequences : bool, default=False
        Return outputs at every step; otherwise once, from the states in which every
        direction ends.
    vocabulary_size : int, optional
        Number of token ids, padding included; None for sequences of real numbers.
    embedding_dim : int, optional
        Width of the embedding, if there is a vocabulary.
    shortcuts : bool, default=False
        Shortcuts among the exit layers, see :class:`DenseNetwork`.
    dropout : float, default=0.0
        Dropout of the hidden exit layers; it also follows every recurrent layer.
    batch_norm : bool, default=False
        Batch normalisation of the hidden exit layers.
    generator : torch.Generator, optional
        Source of randomness for the initial weights and for dropout.
    dtype : torch.dtype, optional
        Type of the weights; torch's default if None.

    Examples
    --------
    >>> import torch
    >>> net = RecurrentNetwork(2, (5,), (), 3, cell="lstm", activation="tanh")
    >>> net(torch.zeros(4, 7, 2)).shape
    torch.Size([4, 3])
    """

    def __init__(
        self,
        n_inputs: int,
        recurrent_layer_sizes: Sequence[int],
        hidden_layer_sizes: Sequence[int],
        n_outputs: int,
        *,
        cell: str,
        activation: str,
        bidirectional: bool = False,
        return_sequences: bool = False,
        vocabulary_size: int | None = None,
        embedding_dim: int | None = None,
        shortcuts: bool = False,
        dropout: float = 0.0,
        batch_norm: bool = False,
        generator: torch.Generator | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        if cell not in CELLS:
            known = ", ".join(map(repr, CELLS))
            raise ValueError(f"cell must be one of {known}, got {cell!r}")
        self.return_sequences = return_sequences
        self.bidirectional = bidirectional
        self.embedding: nn.Embedding | None = None
        if vocabulary_size is not None:
            if embedding_dim is None:
                raise ValueError("vocabulary_size needs an embedding_dim, got None")
            self.embedding = _embedding(
                vocabulary_size, embedding_dim, generator, dtype
            )
            n_inputs = embedding_dim
        options: dict[str, Any] = {"bidirectional": bidirectional, "dtype": dtype}
        if cell == "rnn":
            options["nonlinearity"] = activation
        self.recurrent = nn.ModuleList()
        for width in recurrent_layer_sizes:
            layer = _recurrent_layer(CELLS[cell], n_inputs, width, options)
            self.recurrent.append(initialise_cell_(layer, generator))
            n_inputs = (1 + bidirectional) * width
        self.dropout = SeededDropout(dropout, generator) if dropout > 0 else None
        self.exit = DenseNetwork(
            n_inputs,
            hidden_layer_sizes,
            n_outputs,
            activation,
            shortcuts=shortcuts,
            dropout=dropout,
            batch_norm=batch_norm,
            generator=generator,
            dtype=dtype,
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map sequences to the sums of the last layer.

        Parameters
        ----------
        x : Tensor of shape (n, time) or (n, time, channels)
            Token ids; or real numbers, which a network with an embedding takes for
            embedded tokens.

        Returns
        -------
        Tensor of shape (n, n_outputs) or (n, time, n_outputs)
            The sums; zero where there is padding.
        """
        real, n_steps = _real_steps(x), x.shape[1]
        if real is not None and self._may_cut:
            longest = int(real.sum(1).max())
            x, real = x[:, :longest], real[:, :longest]
        if self.embedding is not None and not x.is_floating_point():
            x = self.embedding(x)
        lengths = None if real is None else real.sum(1)
        if real is not None:
            x = x.masked_fill(~real[..., None], 0)
        states = self._recur(x, lengths)
        if not self.return_sequences:
            return self._exit(self._ends(states, lengths))
        if real is None:
            return self._exit(states.flatten(0, 1)).view(*states.shape[:2], -1)
        sums = self._exit(states[real])
        out = sums.new_zeros(*real.shape, sums.shape[-1]).masked_scatter(
            real[..., None], sums
        )
        return F.pad(out, (0, 0, 0, n_steps - out.shape[1]))

    @property
    def _may_cut(self) -> bool:
        """Whether steps that are padding in every sequence may be left out.

        Targets belong to all steps, and an exported model to any number of them.
        """
        plain = all(type(layer) in CELLS.values() for layer in self.recurrent)
        return plain and not torch.onnx.is_in_onnx_export()

    def _recur(self, x: Tensor, lengths: Tensor | None) -> Tensor:
        for layer in self.recurrent:
            # Steps after the end do not affect earlier ones, and packed sequences are
            # slow on the CPU.  But a layer that has replaced one of torch's, in target
            # space, is solved for on the real steps, and has to know them.
            packs = self.bidirectional or type(layer) not in CELLS.values()
            if lengths is None or not packs:
                x = layer(x)[0]
            else:
                x = _run_packed(layer, x, lengths)
            if self.dropout is not None:
                x = self.dropout(x)
        return x

    def _exit(self, rows: Tensor) -> Tensor:
        sums: Tensor = self.exit(rows)
        return sums

    def _ends(self, states: Tensor, lengths: Tensor | None) -> Tensor:
        """Take the state in which each direction ends: (n, directions * width)."""
        if lengths is None:
            last = states[:, -1]
        else:
            at = (lengths - 1)[:, None, None].expand(-1, 1, states.shape[2])
            last = states.gather(1, at)[:, 0]
        if not self.bidirectional:
            return last
        width = states.shape[-1] // 2
        return torch.cat([last[:, :width], states[:, 0, width:]], dim=1)


def _run_packed(layer: nn.Module, x: Tensor, lengths: Tensor) -> Tensor:
    """Run a recurrent layer on the steps (n, time, features) before padding."""
    if torch.onnx.is_in_onnx_export():  # which supports only this form
        given = pack_padded_sequence(
            x, lengths.cpu(), batch_first=True, enforce_sorted=False
        )
        states: Tensor = pad_packed_sequence(layer(given)[0], batch_first=True)[0]
        return states
    packing = Packing.before_padding(x, lengths)
    return packing.pad(layer(packing.pack(x))[0])


def _real_steps(x: Tensor) -> Tensor | None:
    """Mark the steps before padding, (n, time); None if there is no padding at all."""
    if x.is_floating_point():
        padding = x[..., 0].isnan()
        return ~padding if bool(padding.any()) else None
    # A 0 between the tokens of a sequence is a step too, whatever it stands for.
    real = x.ne(0).long().flip(1).cumsum(1).flip(1) > 0
    return None if bool(real[:, -1].all()) else real


def _recurrent_layer(
    kind: type[nn.RNNBase], n_inputs: int, width: int, options: dict[str, Any]
) -> nn.RNNBase:
    """Make a recurrent layer whose weights are still to be drawn."""
    return make_blank(
        kind,
        input_size=n_inputs,
        hidden_size=width,
        batch_first=True,
        device="cpu",
        **options,
    )


def _embedding(
    n_ids: int, width: int, generator: torch.Generator | None, dtype: torch.dtype | None
) -> nn.Embedding:
    """Make an embedding of normal numbers (Sec. 5.4), with zeros for padding."""
    weight = torch.empty(n_ids, width, dtype=dtype, device="cpu")
    nn.init.normal_(weight, std=_EMBEDDING_DEVIATION, generator=generator)
    weight[0] = 0
    return nn.Embedding(n_ids, width, padding_idx=0, _weight=weight)
