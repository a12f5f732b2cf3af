"""`TargetSpace`: any torch module, learnt through targets instead of weights."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from sktarget.nn import _initialisation
from sktarget.nn._pass import Phase
from sktarget.nn._realisation import RealisedCascade
from sktarget.nn._target_map import TargetMap

__all__ = ["TargetSpace"]


class TargetSpace(RealisedCascade):
    """A module whose linear maps solve for their weights on a fixed batch.

    The parameters of the network are, layer by layer, the *targets* T for the sums
    that the layer gives on the fixed batch X̄.  Whenever the network runs in training
    mode, each layer first solves the ridge regression of its targets on its inputs
    on X̄ and then applies these weights to the batch at hand.  The gradient of any
    loss flows through the solves to the targets, so any optimiser and any training
    loop will do.

    Parameters
    ----------
    module : nn.Module
        The network.  It is copied; its layers of registered kinds (``nn.Linear``,
        ``nn.Conv1d``, ``nn.Conv2d``, ``nn.Conv3d``, ``nn.RNN``, ``nn.LSTM``,
        ``nn.GRU``) are replaced by target layers; everything else stays as it is and
        learns in weight space.  Control flow, shortcuts and several outputs are
        allowed; the order in which the layers run on X̄ is the cascade.  Layers with a
        frozen parameter (``requires_grad=False``), a shared one, or a ``forward`` of
        their own in place of that of their class are left alone.  Hooks of replaced
        layers are kept.
    fixed_batch : Tensor of shape (n̄_b, ...)
        X̄, the inputs on which the targets are defined, in the layout that the
        module expects.  It should have at least as many rows as the widest layer has
        inputs; time steps count as rows.  It is not copied, and must not change during
        training: give a copy of memory that is used again, such as that of a loader.
    lam : float or sequence of float, default=1e-3
        λ ≥ 0 of Eq. 7, the ridge of every solve; not a weight decay.  A sequence gives
        every target layer its own, in the order of :meth:`target_layers`.
    untangling : {"scu", "ocu"}, default="scu"
        Sequential cascade untangling (Alg. 2) hands the sums actually met on X̄ to the
        next layer; the optimistic kind (Eq. 8) hands on the targets.
    keep_weights : bool, default=False
        Start from targets that the solves turn back into the given weights, not from
        the sums of these weights, which λ shrinks.
    anchor : {"zero", "weights"}, default="zero"
        What the ridge pulls the weights W of recurrent layers to: zero, or the given
        weights W₀, in which case a solve is for the minimum of ‖AW − T‖² + λ‖W − W₀‖².
        Other layers are always pulled to zero.
    in_weight_space : collection of str, default=()
        Names of submodules whose layers keep their weights and learn in weight space,
        as layers must that run twice or start from a state.

    Attributes
    ----------
    module : nn.Module
        The copy that holds the target layers.
    fixed_batch : Tensor
        X̄, a buffer.

    Raises
    ------
    ValueError
        If `lam` is negative, not finite in the dtype of X̄, or requires gradients, or is
        a sequence without exactly one number per target layer; if `untangling`,
        `anchor` or a name in `in_weight_space` is unknown; if `fixed_batch` is empty or
        not floating point; or if no layer of `module` can be learnt by targets, or one
        has no weights yet (lazy layers) or weights that a hook computes.
    RuntimeError
        If a layer runs twice in one pass; the message names it.  (A recurrent layer
        may: it then applies the weights that its first run solved for.)  If a layer
        runs in training mode outside of a pass, as when a part is checkpointed.  If the
        module gives other outputs on X̄ once target layers stand in, as with
        ``isinstance(layer, nn.Linear)`` in its ``forward``.

    Warns
    -----
    UserWarning
        Once, naming them, if layers of unregistered kinds, partly frozen layers, layers
        that share weights or layers with a ``forward`` of their own keep their weights;
        and likewise for layers that do not run on X̄.

    Notes
    -----
    The targets start as the sums that the given weights produce on X̄ (Sec. 3.5), so
    the network starts as (about) the given one; see :meth:`reset_targets` for
    random targets.  With `keep_weights` they are ``S + λ (AAᵀ)⁺ S`` for the inputs A of
    the layer: dense and convolutional layers then start as the given ones, on all
    inputs if A has full column rank, else (with SCU) on X̄.  The targets of recurrent
    layers, whose A depends on them, start as sums.

    A recurrent layer forgets what λ takes from its weights at every step.  With
    ``anchor="weights"`` one that comes first, or after layers that start as they were
    given, starts as the given one too, whatever its λ is.  A large λ, of the
    order of the number of steps in X̄, then keeps it close to these weights along
    directions that hardly occur, and memories that orthogonal weights hold over tens of
    steps are learnt at once.

    A ``state_dict`` holds targets, X̄ and λ, without which targets mean nothing: a
    network that loads one takes over its λ.  It does not hold `untangling`.

    The network begins in the mode of `module`.  In evaluation mode the weights of the
    last realisation are applied and nothing is solved, so that no gradient reaches the
    targets: call ``train()`` before training.  Any number of threads may evaluate.  The
    weights are refreshed on switching from training to evaluation, and by the first
    evaluation after the targets have changed.  What changes in evaluation mode without
    a trace on the tensors, through ``p.data``, fused optimisers, hooks or attributes of
    modules, goes unnoticed until the next switch: ``net.train().eval()``.

    A module may use ``weight`` and ``bias`` of a dense or convolutional layer
    elsewhere: within a pass they are those solved for, and NaN until then.  Between
    passes they are those of the last realisation, however long training has gone on:
    to watch weights, use :meth:`forward_with_weights`.

    Batch normalisation takes the statistics of X̄ on X̄, in the solves for evaluation
    too, and those of the batch on the batch.  Running statistics are of batches alone.
    One that is in evaluation mode while the network is trained, or that has never been
    in training mode, takes running statistics everywhere.

    Second derivatives are not supported: ``create_graph=True`` works, but
    differentiating the gradients raises an error.  Transforms of ``torch.func`` do not
    pass through solves: apply them to what :meth:`realise` returns.

    If the batch is X̄ itself, one pass serves both, unless untangling is optimistic,
    dropout is active or gradients of the batch are needed.  Dropout is recognised as
    ``nn.Dropout`` and its kin, and in attention and recurrent modules; ``F.dropout``
    is not.  Other batches run stacked below X̄ if the module treats rows independently:
    trials at construction find out, or the class says so with
    ``treats_rows_alone = True``.  Otherwise, and with batch normalisation, X̄ and the
    batch run one after the other.  The trials run in evaluation mode: what mixes rows
    in training alone, such as mixup or ``F.batch_norm``, must have an attribute
    ``treats_rows_alone = False``, be it the module or a part of it.  Where the two run
    as one, hooks see X̄ on top of the batch, and so does what modules keep in passing,
    such as penalties on their activations.

    In single precision gradients of deep networks are inaccurate for λ of 1e-5 and
    less: use double precision there.

    Where layers, activations and max-pooling follow each other in an ``nn.Sequential``,
    activations overwrite the sums of target layers, which saves memory; outputs and
    gradients are the same.

    The targets of convolutions are laid out channels last.  What takes views of
    parameters or gradients, such as ``torch.optim.LBFGS`` or ``parameters_to_vector``,
    needs ``p.data = p.data.contiguous()``.

    ``torch.nn.utils.parametrize`` cannot express this: there a weight is a function
    of parameters alone, here it depends on the layers that ran before it.

    References
    ----------
    M. Fairbank, S. Samothrakis, L. Citi, "Deep Learning in Target Space", JMLR 23
    (2022).

    Examples
    --------
    >>> import torch
    >>> from torch import nn
    >>> _ = torch.manual_seed(0)
    >>> X = torch.randn(50, 2)
    >>> y = (X[:, 0] * X[:, 1] > 0).long()
    >>> module = nn.Sequential(nn.Linear(2, 8), nn.Tanh(), nn.Linear(8, 2))
    >>> net = TargetSpace(module, fixed_batch=X, lam=1e-3)
    >>> optimizer = torch.optim.Adam(net.parameters(), lr=0.05)
    >>> for _ in range(100):
    ...     optimizer.zero_grad()
    ...     loss = nn.functional.cross_entropy(net(X), y)
    ...     loss.backward()
    ...     _ = optimizer.step()
    >>> bool(loss < 0.1)
    True
    >>> net.realise()
    Sequential(
      (0): Linear(in_features=2, out_features=8, bias=True)
      (1): Tanh()
      (2): Linear(in_features=8, out_features=2, bias=True)
    )
    """

    def __init__(
        self,
        module: nn.Module,
        fixed_batch: Tensor,
        lam: float | Sequence[float] = 1e-3,
        untangling: str = "scu",
        *,
        keep_weights: bool = False,
        anchor: str = "zero",
        in_weight_space: Collection[str] = (),
    ) -> None:
        super().__init__(module, fixed_batch, lam, untangling, anchor, in_weight_space)
        if keep_weights:
            self._record(exact=True)
        # Parts keep modes of their own, such as that of a frozen batch normalisation.
        self.training = module.training
        if not self.training:
            self._refresh()

    def get_extra_state(self) -> Tensor:
        """Return what a ``state_dict`` holds besides tensors: λ of every layer."""
        lams = [target_map.lam for target_map in self._target_maps.values()]
        return torch.tensor(lams, dtype=torch.float64, device="cpu")

    def set_extra_state(self, state: Tensor) -> None:
        """Take over λ of every layer from a ``state_dict``.

        Parameters
        ----------
        state : Tensor
            What :meth:`get_extra_state` returned.
        """
        self.lam = state.tolist()

    def load_state_dict(
        self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False
    ) -> Any:
        """Load targets, X̄ and λ; a state that does not fit leaves λ as it was.

        Parameters
        ----------
        state_dict : mapping
            What ``state_dict()`` of a network like this one has returned.
        strict : bool, default=True
            Whether names must be the same.
        assign : bool, default=False
            Whether to take over the tensors of the state rather than their values.

        Returns
        -------
        NamedTuple
            Missing and unexpected names.
        """
        before = self.lam
        try:
            return super().load_state_dict(state_dict, strict, assign)
        except BaseException:
            self.lam = before
            raise

    def choose_lam(self, most: float = math.inf) -> Self:
        """Set every λ to the mean eigenvalue of the Gramian that it is added to.

        λ then grows with the rows of X̄ and with the scale of a layer's inputs.  The
        three Gramians of a GRU share one λ, that of its reset and update gates.  This
        takes one pass over X̄ with the present targets: every layer solves with its new
        λ before the next one runs.  Dropout is off.

        Parameters
        ----------
        most : float, default=inf
            Bound on every λ, in mean eigenvalues of the Gramian of the inputs less
            their means.  Inputs that vary little about large means, such as means over
            all pixels of an image, have a large eigenvalue that says nothing, and λ
            would suppress what they tell; 30 leaves most others as they are.

        Returns
        -------
        TargetSpace
            The network itself.

        Raises
        ------
        ValueError
            If `most` is not positive.
        FactorisationError
            If a layer cannot be solved for its weights; every λ then stays as it was.

        Examples
        --------
        Without a bias, the inputs 2 and 0 have the Gramian 4:

        >>> import torch
        >>> layer = torch.nn.Linear(1, 3, bias=False)
        >>> TargetSpace(layer, torch.tensor([[2.0], [0.0]])).choose_lam().lam
        4.0
        """
        if not most > 0:
            raise ValueError(f"most must be positive, got {most!r}")
        before = self.lam
        try:
            with self._solving_alone():
                self._solve_on_fixed_batch(most_lam=most)
        except BaseException:
            self.lam = before
            raise
        return self

    # -- targets ---------------------------------------------------------------------

    def reset_targets(
        self,
        scale: float = 1.0,
        *,
        project: bool = True,
        generator: torch.Generator | None = None,
    ) -> Self:
        """Draw the targets anew, as in Sec. 3.3.

        Parameters
        ----------
        scale : float, default=1.0
            σ of the normal distribution, cut off at 2σ, that targets are drawn from.
        project : bool, default=True
            Replace the targets once, layer by layer, by the sums that they lead to
            (Eq. 13), so that training starts from targets that can be met.
        generator : torch.Generator, optional
            Source of randomness; by default torch's global generator.

        Returns
        -------
        TargetSpace
            The network itself.

        Raises
        ------
        ValueError
            If `scale` is not a positive number.
        FactorisationError
            If a layer cannot be solved for its weights; all targets then stay as they
            were.
        """
        if not 0 < scale < math.inf:
            raise ValueError(f"scale must be positive and finite, got {scale!r}")
        before = {m: m.targets.detach().clone() for m in self._target_maps.values()}
        try:
            for target_map in before:
                _initialisation.truncated_normal_(target_map.targets, scale, generator)
            if project:
                self._project()
            if not self.training:
                self._refresh()
        except BaseException:
            with torch.no_grad():
                for target_map, targets in before.items():
                    target_map.targets.copy_(targets)
            raise
        return self

    def _project(self) -> None:
        """Replace the targets, layer by layer, by the sums that they lead to."""
        with torch.no_grad(), self._as_in_solves():
            fixed = self._unchanging(self.fixed_batch)
            self._run(Phase.PROJECT, fixed, is_alone=True)

    def target_layers(self) -> dict[str, TargetMap]:
        """Return the target layers in the order in which they run.

        Returns
        -------
        dict of str to nn.Module
            Path of each layer in the wrapped module, and the layer; ``layer.targets``
            is its parameter.  A recurrent module has an entry for each of its layers
            and directions, such as ``"rnn.l0"`` and ``"rnn.l0_reverse"``.
        """
        return dict(self._target_maps)

    # -- passes ----------------------------------------------------------------------

    def forward(self, x: Tensor | PackedSequence) -> Any:
        """Run the network on a batch.

        Parameters
        ----------
        x : Tensor of shape (n_b, ...), or PackedSequence
            The batch X.  Passing X̄ itself (the same storage) saves half the work.

        Returns
        -------
        Tensor, or what the module returns
            Outputs for the rows of `x` alone.
        """
        if self.training:
            return self._solve_and_run(x)[0]
        self._ensure_realised(stacklevel=6)  # Two calls of torch are in between.
        return self.module(self._unchanging(x))

    def forward_with_weights(self, x: Tensor) -> tuple[Any, list[Tensor]]:
        """Solve anew and run; return the weights used as well, for penalties on them.

        Dropout and normalisation act as in the present mode, which is that of training
        in a training loop.

        Parameters
        ----------
        x : Tensor of shape (n_b, ...)
            The batch X.

        Returns
        -------
        outputs : Tensor, or what the module returns
            As :meth:`forward`.
        weights : list of Tensor
            The matrix W of every layer, in the order in which they run, each of shape
            (inputs, outputs) with the bias left out; part of the graph.  The inputs
            of a convolution are those of one patch; with several groups a leading
            axis runs over these.
        """
        outputs, matrices = self._solve_and_run(x)
        return outputs, self._without_biases(matrices)

    def forward_and_evaluate(
        self, x: Tensor, others: Tensor
    ) -> tuple[Any, list[Tensor], Any]:
        """Solve anew and run, and also on other rows as evaluation would at this point.

        The weights are solved for only once.  With dropout, which takes part in the
        solves of training, the outputs for the other rows are not those of evaluation.

        Parameters
        ----------
        x : Tensor of shape (n_b, ...)
            The batch X.
        others : Tensor of shape (n, ...)
            Rows to evaluate.

        Returns
        -------
        outputs, weights
            As :meth:`forward_with_weights`.
        evaluated : Tensor, or what the module returns
            Outputs for the rows of `others`, without a graph.
        """
        outputs, matrices = self._solve_and_run(x)
        with torch.no_grad(), self._as_in_evaluation():
            rows = self._unchanging(others)
            _, evaluated = self._run(Phase.APPLY, rows, weights=matrices)
        return outputs, self._without_biases(matrices), evaluated

    def _without_biases(self, matrices: dict[str, Tensor]) -> list[Tensor]:
        return [
            target_map.without_bias(matrices[name])
            for name, target_map in self._target_maps.items()
            if name in matrices
        ]

    def extra_repr(self) -> str:
        """Show the shape of X̄, λ and the untangling."""
        lams = [self.lam] if isinstance(self.lam, float) else self.lam
        return (
            f"fixed_batch={tuple(self.fixed_batch.shape)}, "
            f"lam={', '.join(f'{lam:g}' for lam in lams)}, "
            f"untangling={self.untangling!r}"
            + (f", anchor={self.anchor!r}" if self.anchor != "zero" else "")
        )
