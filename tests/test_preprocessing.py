"""Texts to token ids."""

import pickle
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer
from sklearn.utils import estimator_checks

from sktarget.preprocessing import TokenSequencer

TEXTS = [
    "The cat sat on the mat.",
    "A cat, a cat; my kingdom for a cat!",
    "Où est le café où l'on sat?",
]


# The suite as a whole passes over estimators that take texts: these need no data.
@pytest.mark.parametrize(
    "check",
    [
        "check_estimator_cloneable",
        "check_estimator_repr",
        "check_get_params_invariance",
        "check_mixin_order",
        "check_no_attributes_set_in_init",
        "check_parameters_default_constructible",
        "check_set_params",
        "check_valid_tag_types",
    ],
)
def test_scikit_learn_s_checks(check: str) -> None:
    getattr(estimator_checks, check)("TokenSequencer", TokenSequencer())


def test_parameters_are_checked_by_their_constraints() -> None:
    names = TokenSequencer().get_params().keys()
    assert TokenSequencer._parameter_constraints.keys() == names


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"max_features": 3},
        {"lowercase": False},
        {"strip_accents": "unicode", "min_df": 2},
        {"ngram_range": (1, 2), "stop_words": "english"},
        {"analyzer": "char", "max_df": 2},
        {"analyzer": str.split},
        {"token_pattern": r"\w+"},
        {"vocabulary": ["mat", "cat"]},
    ],
)
def test_tokens_and_vocabulary_are_those_of_the_count_vectorizer(
    options: dict[str, Any],
) -> None:
    counter = CountVectorizer(**options)
    counts = counter.fit_transform(TEXTS).toarray()
    sequencer = TokenSequencer(**options)
    ids = sequencer.fit_transform(TEXTS)
    assert sequencer.vocabulary_ == {
        token: column + 2 for token, column in counter.vocabulary_.items()
    }
    size = sequencer.vocabulary_size_
    assert size == len(counter.vocabulary_) + 2
    for row, wanted in zip(ids, counts, strict=True):
        assert_array_equal(np.bincount(row, minlength=size)[2:], wanted)


def test_order_padding_and_unknown_tokens() -> None:
    sequencer = TokenSequencer().fit(["b0 a0 c0"])
    ids = sequencer.transform(["c0 a0 zz b0 a0", "zz yy", "", "a0"])
    assert ids.dtype == np.int64
    wanted = [[4, 2, 1, 3, 2], [1, 1, 0, 0, 0], [1, 0, 0, 0, 0], [2, 0, 0, 0, 0]]
    assert_array_equal(ids, wanted)


@pytest.mark.parametrize(
    ("truncate", "wanted"),
    [("pre", [[4, 5], [2, 0]]), ("post", [[2, 3], [2, 0]])],
)
def test_cut_to_max_length(truncate: Any, wanted: list[list[int]]) -> None:
    sequencer = TokenSequencer(max_length=2, truncate=truncate)
    ids = sequencer.fit(["aa bb cc dd"]).transform(["aa bb cc dd", "aa"])
    assert_array_equal(ids, wanted)
    wide = clone(sequencer).set_params(max_length=9).fit_transform(["aa bb"])
    assert_array_equal(wide, [[2, 3] + 7 * [0]])


def test_most_frequent_tokens_are_kept() -> None:
    sequencer = TokenSequencer(1).fit(["aa bb bb", "bb cc"])
    assert sequencer.vocabulary_ == {"bb": 2}


def test_iterators_pipelines_and_pickles() -> None:
    wanted = TokenSequencer(5, 4).fit_transform(TEXTS)
    assert_array_equal(TokenSequencer(5, 4).fit_transform(iter(TEXTS)), wanted)
    pipeline = make_pipeline(TokenSequencer(5, 4), FunctionTransformer())
    assert_array_equal(pipeline.fit_transform(TEXTS), wanted)
    twin = pickle.loads(pickle.dumps(pipeline))
    assert_array_equal(twin.transform(TEXTS), wanted)
    assert TokenSequencer().fit(TEXTS).transform([]).shape == (0, 1)


def test_a_vocabulary_may_be_any_collection() -> None:
    words = ["to", "be", "or"]
    wanted = TokenSequencer(vocabulary=words).fit_transform(TEXTS)
    for vocabulary in (np.array(words), dict.fromkeys(words).keys()):
        found = TokenSequencer(vocabulary=vocabulary).fit_transform(TEXTS)
        assert_array_equal(found, wanted)
    with pytest.raises(TypeError, match="one text, 'to be'"):
        TokenSequencer(vocabulary="to be").fit(TEXTS)


def test_bad_input() -> None:
    with pytest.raises(NotFittedError):
        TokenSequencer().transform(TEXTS)
    fitted = TokenSequencer().fit(TEXTS)
    for call in (fitted.fit, fitted.fit_transform, fitted.transform):
        with pytest.raises(ValueError, match="string"):
            call("one text")
    with pytest.raises(ValueError, match="'truncate' parameter"):
        TokenSequencer(truncate="both").fit(TEXTS)
    with pytest.raises(ValueError, match="'max_length' parameter"):
        TokenSequencer(max_length=0).fit(TEXTS)
    with pytest.raises(ValueError, match="empty vocabulary"):
        TokenSequencer().fit(["", "!"])


@pytest.mark.parametrize("item", [None, 5, ["a", "b"]])
def test_items_that_are_no_texts_are_named(item: Any) -> None:
    fitted = TokenSequencer().fit(["one two"])
    for call in (TokenSequencer().fit, fitted.transform):
        with pytest.raises(ValueError, match=r"item 1 of the texts is .* of type"):
            call(["one two", item])
    as_it_is: Any = {"lowercase": False, "token_pattern": None}
    for reads_lists in (
        TokenSequencer(analyzer=lambda tokens: tokens),
        TokenSequencer(tokenizer=lambda tokens: tokens, **as_it_is),
    ):
        assert reads_lists.fit_transform([["a", "b"]]).shape == (1, 2)


@pytest.mark.parametrize("pattern", ["(", None])
def test_patterns_that_are_none_are_named(pattern: Any) -> None:
    with pytest.raises(ValueError, match=r"token_pattern=.* is no regular"):
        TokenSequencer(token_pattern=pattern).fit(["one two"])
    if pattern is None:
        TokenSequencer(token_pattern=None, tokenizer=str.split).fit(["one two"])


@pytest.mark.parametrize("axes", [0, 2])
def test_arrays_of_texts_have_one_axis(axes: int) -> None:
    texts = np.array("to be") if axes == 0 else np.array([["to be"], ["or not"]])
    match = f"array of {axes} axes" + (r": give .*X\[:, 0\]" if axes else "")
    with pytest.raises(ValueError, match=match):
        TokenSequencer().fit(texts)
    assert TokenSequencer().fit_transform(np.array(["to be", "or"])).shape == (2, 2)
