"""What bad sequences get: an error that says what is wrong, before any training."""

import re
from typing import Any

import numpy as np
import pytest
from scipy import sparse
from torch import nn

from tests.estimators.sequence_support import (
    as_list,
    as_padded,
    fitted,
    series,
    small,
    step_labels,
    tokens,
)
from tests.estimators.support import NoTraining

X, Y = series()
IDS, ID_LABELS = tokens()
STEPS = step_labels(X)
TOKENS = {"vocabulary_size": 8, "embedding_dim": 3}
PER_STEP = {"return_sequences": True}


def assert_refused(
    settings: dict[str, Any],
    bad_X: Any,
    bad_y: Any,
    match: str,
    error: Any = ValueError,
) -> None:
    """Assert that a fit fails before training, and leaves a fitted estimator alone."""
    with pytest.raises(error, match=match):
        small(**settings, callbacks=[NoTraining()]).fit(bad_X, bad_y)
    good_X, good_y = (IDS, ID_LABELS) if "vocabulary_size" in settings else (X, Y)
    model = fitted(good_X, good_y, **(TOKENS if good_X is IDS else {}))
    before = dict(vars(model))
    expected = model.predict(good_X)
    known = model.get_params()
    model.set_params(**settings, callbacks=[NoTraining()])
    with pytest.raises(error, match=match):
        model.fit(bad_X, bad_y)
    model.set_params(**known)
    assert vars(model) == before
    np.testing.assert_array_equal(model.predict(good_X), expected)


def spoilt(place: Any, value: Any, data: Any = X) -> Any:
    bad = data.copy()
    bad[place] = value
    return bad


def with_item(item: Any, data: Any = X) -> list[Any]:
    return [*as_list(data)[:3], item, *as_list(data)[4:]]


SERIES: dict[str, tuple[Any, str]] = {
    "one axis": (X[:, 0, 0], "Expected 2D array"),
    "four axes": (X[..., None], "dim 4.*channels, time"),
    "no rows": (X[:0], r"0 sample\(s\)"),
    "no steps": (X[:, :, :0], r"\(40, 2, 0\) has empty sequences"),
    "no channels": (X[:, :0], r"\(40, 0, 9\) has empty sequences"),
    "no columns": (X[:, 0, :0], r"0 feature\(s\)"),
    "no steps in an item": (with_item(X[3, :, :0]), r"item 3 .*\(2, 0\)"),
    "no axis for channels": (with_item(X[3, 0]), r"item 3 .*\(9,\).*channels, t_i"),
    "other channels": (with_item(X[3, :1]), r"numbers of channels: \[1, 2\]"),
    "no steps in an item of one axis": (
        [x[0, : len(x[0]) * (k != 3)] for k, x in enumerate(as_list(X))],
        r"item 3 .*\(0,\)",
    ),
    "NaN in an item": (with_item(spoilt((3, 0, 2), np.nan)[3]), "NaN, in item 3"),
    "only padding": (
        spoilt(5, np.nan),
        "1 row.s. of X hold nothing but padd.*row 5",
    ),
    "only padding in two axes": (spoilt(5, np.nan)[:, 0], "nothing but padding.*row 5"),
    "hole": (
        spoilt((4, slice(None), 2), np.nan),
        "NaN before the.*row 4 at step 2",
    ),
    "hole in one channel": (spoilt((4, 1, 2), np.nan), "NaN before.*row 4 at step 2"),
    "end of one channel": (spoilt((4, 1, 8), np.nan), "NaN before.*row 4 at step 8"),
    "padding in front": (spoilt((4, slice(None), 0), np.nan), "NaN before the end"),
    "infinity": (spoilt((4, 0, 0), np.inf), "X contains infinity"),
    "infinity in an item": (with_item(np.full((2, 3), np.inf)), "X contains infinity"),
    "complex": (X + 1j, "Complex"),
    "words": (np.full((40, 2, 9), "a"), "could not convert|numeric"),
    "fewer labels": (X[:30], "inconsistent numbers of samples"),
}


@pytest.mark.parametrize("case", SERIES)
def test_series(case: str) -> None:
    bad, match = SERIES[case]
    assert_refused({}, bad, Y, match)


def test_sparse() -> None:
    table = sparse.csr_array(X[:, 0])
    assert_refused({}, table, Y, "[Ss]parse", TypeError)
    assert_refused(TOKENS, sparse.csr_array(IDS), Y, "sparse", TypeError)


TOKEN_CASES: dict[str, tuple[Any, str]] = {
    "real numbers": (IDS.astype(float), "must be integers, but X has dtype float64"),
    "real numbers in lists": (IDS.astype(float).tolist(), "must be integers"),
    "truth values": (IDS > 2, "must be integers, but X has dtype bool"),
    "words": ([["a", "b"]] * 40, "must be integers"),
    "negative": (spoilt((3, 2), -1, IDS), r"token id -1 \(row 3, step 2\).*to 7"),
    "too large": (spoilt((3, 2), 8, IDS), "token id 8 .*vocabulary_size=8"),
    "only padding": (spoilt(3, 0, IDS), "nothing but padding.*row 3"),
    "empty item": ([*IDS[:39].tolist(), []], r"item 39 of X has shape \(0,\)"),
    "no steps": (IDS[:, :0], "holds no token"),
    "no rows": (IDS[:0], "holds no token"),
    "one axis": (IDS[0], "Expected 2D array"),
    "one axis in a list": (IDS[0].tolist(), "Expected 2D array"),
    "three axes": (IDS[:, None], "Expected 2D array"),
    "fewer labels": (IDS[:30], "inconsistent numbers of samples"),
}


@pytest.mark.parametrize("case", TOKEN_CASES)
def test_tokens(case: str) -> None:
    bad, match = TOKEN_CASES[case]
    assert_refused(TOKENS, bad, ID_LABELS, match)


def label_lists() -> list[Any]:
    return [row[: x.shape[1]] for row, x in zip(STEPS, as_list(X), strict=True)]


STEP_CASES: dict[str, tuple[Any, Any, str]] = {
    "none": (X, None, "y is None"),
    "a label each": (X, Y, r"label for every step.*item 0 has shape \(\)"),
    "fewer rows": (X, STEPS[:30], r"inconsistent numbers of samples: \[40, 30\]"),
    "fewer steps": (X, STEPS[:, :8], "8 steps for sequence 0, but X has 9"),
    "more steps": (X, np.pad(STEPS, ((0, 0), (0, 1))), "10 steps .* X has 9 there"),
    "other lengths": (as_list(X), label_lists()[::-1], "5 steps for sequence 0"),
    "list with padding": (as_list(X), list(STEPS), "9 steps for sequence"),
    "three axes": (X, STEPS[..., None], "label for every step"),
    "all marked": (X, np.full_like(STEPS, -1), "no step of y counts"),
    "one class": (X, np.where(STEPS == 0, -1, 1), "1 class.*1.*-1"),
    "real numbers": (X, STEPS + 0.5, "Unknown label type"),
    "fewer lists": (as_list(X), label_lists()[:9], "inconsistent numbers of samples"),
}


@pytest.mark.parametrize("case", STEP_CASES)
def test_labels_of_steps(case: str) -> None:
    bad_X, bad_y, match = STEP_CASES[case]
    assert_refused(PER_STEP, bad_X, bad_y, match)


def test_labels_of_sequences() -> None:
    assert_refused({}, X, STEPS, r"\(40, 9\).*return_sequences=True")
    assert_refused({}, X, list(STEPS), "a list of arrays.*return_sequences=True")
    assert_refused({}, X, None, "requires y")
    assert_refused({}, X, Y * 0, "1 class")
    assert_refused({}, X, Y + 0.5, "Unknown label type")


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"cell": "elman"}, "'cell'.*'gru'.*Got 'elman'"),
        ({"recurrent_layer_sizes": ()}, r"recurrent_layer_sizes.*at least one.*\(\)"),
        ({"recurrent_layer_sizes": (5, 0)}, r"recurrent_layer_sizes.*\(5, 0\)"),
        ({"recurrent_layer_sizes": 0}, "'recurrent_layer_sizes'.*Got 0"),
        ({"bidirectional": "yes"}, "'bidirectional'.*Got 'yes'"),
        ({"return_sequences": "yes"}, "'return_sequences'.*Got 'yes'"),
        ({"n_ignored_steps": -1}, "'n_ignored_steps'.*Got -1"),
        ({"n_ignored_steps": 2}, "n_ignored_steps=2 .*return_sequences=True"),
        ({"fixed_sequence_length": 0}, "'fixed_sequence_length'.*Got 0"),
        ({"fixed_sequence_length": 10}, "fixed_sequence_length=10 .* 9 steps.*noise"),
        ({"fixed_batch_size": 41}, "fixed_batch_size=41.*40"),
        ({"activation": "logistic"}, "activation='logistic'.*cell='rnn'"),
        ({"batch_norm": True}, "batch_norm=True.*'weights'"),
        ({"fixed_batch": np.zeros((5, 3, 9))}, r"\(5, 3, 9\).*n̄_b, 2, n̄_t"),
        ({"fixed_batch": np.zeros((5, 9))}, r"\(5, 9\).*n̄_b, 2, n̄_t"),
        ({"fixed_batch": np.zeros((5, 2, 0))}, "fixed_batch.*empty"),
        ({"fixed_batch": np.full((5, 2, 9), np.nan)}, "fixed_batch.*padding"),
        ({"fixed_batch": "middle"}, "'fixed_batch'.*Got 'middle'"),
    ],
)
def test_parameters(settings: dict[str, Any], match: str) -> None:
    assert_refused(settings, X, Y, match)


def test_parameters_of_tokens() -> None:
    assert_refused({"vocabulary_size": 1}, IDS, Y, "'vocabulary_size'.*Got 1")
    settings = TOKENS | {"embedding_dim": 0}
    assert_refused(settings, IDS, Y, "'embedding_dim'.*Got 0")
    settings = TOKENS | {"fixed_batch": np.zeros((5, 2, 9))}
    assert_refused(settings, IDS, Y, r"\(5, 2, 9\).*n̄_b, 3, n̄_t")


def _gives_steps(n_channels: int, n_outputs: int) -> nn.Module:
    return nn.Linear(n_channels, n_outputs)


def test_module_of_ones_own() -> None:
    assert_refused({"module": _gives_steps}, X, Y, r"\(2, 9, 2\).*\(2, 2\) is needed")
    model = fitted(X, STEPS, module=_gives_steps, **PER_STEP)
    assert model.predict(X).shape == STEPS.shape


def test_later_tokens_are_those_of_the_fitted_vocabulary() -> None:
    model = fitted(IDS, Y, vocabulary_size=8)
    model.set_params(vocabulary_size=30)
    with pytest.raises(ValueError, match="vocabulary_size=8 ids run from 0"):
        model.predict(IDS + 12)


def test_later_sequences() -> None:
    model = fitted(as_padded(X), Y)
    for bad, match in [
        (X[:, :1], r"X has 1 features, but .* expecting 2.*channels.*transpose"),
        ([X[0, :1]], r"X has 1 features, but .* expecting 2.*x\.T for x in X"),
        (X[:, 0], "X has 2 axes, but .*fitted with X of shape .n, channels, time"),
        (spoilt(5, np.nan), "nothing but padding"),
    ]:
        for call in (model.predict, model.predict_proba, lambda b: model.score(b, Y)):
            with pytest.raises(ValueError, match=match):
                call(bad)
        with pytest.raises(ValueError, match=match):
            model.partial_fit(bad, Y[: len(bad)])
    with pytest.raises(ValueError, match="token id 8"):
        fitted(IDS, ID_LABELS, **TOKENS).predict([[1, 8]])
    by_step = fitted(X, STEPS, **PER_STEP)
    with pytest.raises(ValueError, match="8 steps for sequence 0"):
        by_step.score(X, STEPS[:, 1:])
    with pytest.raises(ValueError, match="label for every step"):
        by_step.score(X, Y)


@pytest.mark.parametrize(
    "change",
    [{"cell": "lstm"}, {"bidirectional": True}, {"recurrent_layer_sizes": 7}],
)
def test_network_cannot_change_while_fitting_on(change: dict[str, Any]) -> None:
    model = fitted(X, Y, warm_start=True)
    model.set_params(**change)
    ((name, value),) = change.items()
    shown = (value,) if isinstance(value, int) and value is not True else value
    message = re.escape(f"is {shown!r})")
    with pytest.raises(ValueError, match=rf"cannot change {name} \(was .*{message}"):
        model.fit(X, Y)


def test_what_sequences_hold_cannot_change_while_fitting_on() -> None:
    of_tokens = fitted(IDS, ID_LABELS, **TOKENS, warm_start=True)
    of_series = fitted(1000 * X, Y, warm_start=True)
    for model, size, given in ((of_tokens, None, X), (of_series, 8, IDS)):
        model.set_params(vocabulary_size=size)
        with pytest.raises(ValueError, match=r"cannot change vocabulary_size \("):
            model.fit(given, Y)


def test_univariate_series_have_no_axis_of_channels() -> None:
    model = fitted(X[:, 0], Y)
    with pytest.raises(ValueError, match=r"X has 3 axes, but .* of shape .n, time"):
        model.predict(X[:, :1])


# --- labels of steps that predictions could not tell from padding ---------------------


@pytest.mark.parametrize(
    ("labels", "match"),
    [
        (np.where(STEPS == 1, np.inf, 1.0), "y contains infinity"),
        (STEPS.astype(float) + 1e19, r"between -2\*\*63 and 2\*\*63: give them as"),
        (STEPS - 1e19, r"between -2\*\*63 and 2\*\*63: give them as texts"),
        (STEPS.astype(np.uint64) + 2**63, r"between -2\*\*63 and 2\*\*63: give"),
        (STEPS.astype("M8[D]"), "y has dtype datetime64"),
        (np.where(STEPS == 1, "", "a"), "holds the label '', which predictions have"),
        (np.ma.masked_array(STEPS, STEPS == 1), r"masked.*give y.astype\(object\)"),
        (sparse.csr_array(STEPS), "one object of type csr_array"),
        (1, "one object of type int"),
    ],
)
def test_labels_that_are_none(labels: Any, match: str) -> None:
    assert_refused(PER_STEP, X, labels, match)


@pytest.mark.parametrize(
    ("classes", "match"),
    [
        ([-1, 0, 1], "classes holds -1, which marks steps"),
        ([0.0, 1.0, np.nan], "classes holds nan, which is no label"),
        ([0, 1, None], r"classes must list all labels, got \[0, 1, None\]"),
        (["", "a"], "classes, holds the label ''"),
        ({0, 1}, r"classes must list all labels, got \{0, 1\}"),
    ],
)
def test_classes_that_are_none(classes: Any, match: str) -> None:
    model = small(**PER_STEP)
    with pytest.raises(ValueError, match=match):
        model.partial_fit(X, STEPS, classes=classes)


@pytest.mark.parametrize(
    ("bad", "match"),
    [
        (np.ma.masked_array(X, X > 1), r"masked.*: give X.astype\(float\).fill"),
        ([np.ma.masked_array(x, x > 1) for x in X], "X has masked values"),
        (list(X[:, :, 0].astype("M8[D]")[:, :, None]), "X has dtype datetime64"),
        ([[[1, 2, 3], [4, 5]]] * 20, r"item 0 of X is ragged.* \[3, 2\]"),
        (
            [np.array([1, 2, None], dtype=object), np.ones(2)] * 10,
            "NaN, in item 0: the sequences of a list need no padding",
        ),
        (
            [np.array(["a", {}], dtype=object), np.ones(3)] * 10,
            "item 0 of X does not hold numbers",
        ),
    ],
)
def test_sequences_that_are_none(bad: Any, match: str) -> None:
    assert_refused({}, bad, np.arange(20) % 2, match)
