"""From text to sequences of token ids, for the sequence estimators."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from numbers import Integral, Real
from typing import Any, ClassVar, Literal, Self

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, TransformerMixin, _fit_context
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.utils._param_validation import HasMethods, Interval, StrOptions
from sklearn.utils.validation import check_is_fitted

__all__ = ["TokenSequencer"]

Tokens = NDArray[np.int64]

_PADDING, _UNKNOWN, _FIRST = 0, 1, 2


class TokenSequencer(TransformerMixin, BaseEstimator):
    r"""Turn texts into padded rows of token ids.

    Texts are split as :class:`~sklearn.feature_extraction.text.CountVectorizer` splits
    them, and the vocabulary is the one that it would learn; but the order of the
    tokens is kept.  Rows are padded on the right with 0.  Tokens outside the
    vocabulary become 1, those in it 2 and above.

    Parameters
    ----------
    max_features : int, default=None
        Size of the vocabulary: the tokens most frequent in the texts of `fit`.  By
        default all tokens.

    max_length : int, default=None
        Number of tokens to which texts are cut and padded.  By default nothing is cut,
        and the longest text given to `transform` decides.

    truncate : {"pre", "post"}, default="pre"
        Where long texts are cut: "pre" drops their beginning, "post" their end.

    analyzer : {"word", "char", "char_wb"} or callable, default="word"
        This and the following parameters mean what they mean in
        :class:`~sklearn.feature_extraction.text.CountVectorizer`.

    ngram_range : tuple (min_n, max_n), default=(1, 1)
        Lengths of the n-grams that are taken as tokens.

    lowercase : bool, default=True
        Whether to turn texts into lower case.

    strip_accents : {"ascii", "unicode"} or callable, default=None
        How to remove accents.

    preprocessor : callable, default=None
        Replaces `lowercase` and `strip_accents`.

    tokenizer : callable, default=None
        Replaces `token_pattern`.

    token_pattern : str, default=r"(?u)\b\w\w+\b"
        Regular expression for a token; by default, words of two characters or more.

    stop_words : {"english"} or list, default=None
        Tokens to leave out.

    max_df, min_df : float or int, default=1.0 and 1
        Leave tokens out of the vocabulary that occur in more, or in fewer, of the
        texts than this number or proportion.

    vocabulary : mapping or iterable, default=None
        A vocabulary to use in place of a learnt one.

    Attributes
    ----------
    vocabulary_ : dict
        The id of every known token.

    vocabulary_size_ : int
        Number of ids, those of padding and of unknown tokens included.

    Notes
    -----
    A text without any tokens becomes a single unknown one: estimators of sequences
    refuse rows of nothing but padding.

    Examples
    --------
    >>> from sktarget.preprocessing import TokenSequencer
    >>> sequencer = TokenSequencer(max_length=4)
    >>> sequencer.fit_transform(["to be or not to be", "to be"])
    array([[4, 3, 5, 2],
           [5, 2, 0, 0]])
    >>> sequencer.transform(["to have"])
    array([[5, 1, 0, 0]])
    """

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        "max_features": [Interval(Integral, 1, None, closed="left"), None],
        "max_length": [Interval(Integral, 1, None, closed="left"), None],
        "truncate": [StrOptions({"pre", "post"})],
        "analyzer": [StrOptions({"word", "char", "char_wb"}), callable],
        "ngram_range": [tuple],
        "lowercase": ["boolean"],
        "strip_accents": [StrOptions({"ascii", "unicode"}), None, callable],
        "preprocessor": [callable, None],
        "tokenizer": [callable, None],
        "token_pattern": [str, None],
        "stop_words": [StrOptions({"english"}), list, None],
        "max_df": [
            Interval(Real, 0, 1, closed="both"),
            Interval(Integral, 1, None, closed="left"),
        ],
        "min_df": [
            Interval(Real, 0, 1, closed="both"),
            Interval(Integral, 1, None, closed="left"),
        ],
        "vocabulary": [Mapping, HasMethods("__iter__"), None],
    }

    vocabulary_: dict[str, int]

    def __init__(
        self,
        max_features: int | None = None,
        max_length: int | None = None,
        *,
        truncate: Literal["pre", "post"] = "pre",
        analyzer: Any = "word",
        ngram_range: tuple[int, int] = (1, 1),
        lowercase: bool = True,
        strip_accents: Any = None,
        preprocessor: Any = None,
        tokenizer: Any = None,
        token_pattern: str | None = r"(?u)\b\w\w+\b",
        stop_words: Any = None,
        max_df: float = 1.0,
        min_df: float = 1,
        vocabulary: Any = None,
    ) -> None:
        self.max_features = max_features
        self.max_length = max_length
        self.truncate = truncate
        self.analyzer = analyzer
        self.ngram_range = ngram_range
        self.lowercase = lowercase
        self.strip_accents = strip_accents
        self.preprocessor = preprocessor
        self.tokenizer = tokenizer
        self.token_pattern = token_pattern
        self.stop_words = stop_words
        self.max_df = max_df
        self.min_df = min_df
        self.vocabulary = vocabulary

    @_fit_context(prefer_skip_nested_validation=True)
    def fit(self, raw_documents: Iterable[str], y: object = None) -> Self:
        """Learn the vocabulary.

        Parameters
        ----------
        raw_documents : iterable of str
            The texts.

        y : None
            Ignored.

        Returns
        -------
        TokenSequencer
            The fitted transformer.

        Raises
        ------
        ValueError
            If a single string, or a table, is given.
        TypeError
            If `vocabulary` is a single string.
        """
        if isinstance(self.vocabulary, str):
            raise TypeError(
                f"vocabulary must hold tokens, got one text, {self.vocabulary!r}: "
                "give a list of them"
            )
        _refuse_what_holds_no_texts(raw_documents)
        self._check_pattern()
        counter = self._counter().fit(self._texts(raw_documents))
        known = sorted(counter.vocabulary_, key=counter.vocabulary_.__getitem__)
        self.vocabulary_ = {token: k for k, token in enumerate(known, _FIRST)}
        return self

    def fit_transform(
        self, raw_documents: Iterable[str], y: object = None, **fit_params: Any
    ) -> Tokens:
        """Learn the vocabulary and return the ids of the same texts.

        Parameters
        ----------
        raw_documents : iterable of str
            The texts.

        y : None
            Ignored.

        **fit_params : dict
            Ignored.

        Returns
        -------
        ndarray of shape (n_texts, length)
            As :meth:`transform`.
        """
        _refuse_what_holds_no_texts(raw_documents)
        raw_documents = list(raw_documents)  # An iterator can be read only once.
        fitted: Self = self.fit(raw_documents, y)
        return fitted.transform(raw_documents)

    def transform(self, raw_documents: Iterable[str]) -> Tokens:
        """Return the ids of the tokens of every text.

        Parameters
        ----------
        raw_documents : iterable of str
            The texts.

        Returns
        -------
        ndarray of shape (n_texts, length)
            Ids of the tokens, then 0 to the end of the row.

        Raises
        ------
        ValueError
            If a single string, or a table, is given.
        """
        check_is_fitted(self)
        _refuse_what_holds_no_texts(raw_documents)
        analyze = self._counter().build_analyzer()
        known = self.vocabulary_
        rows = [
            # A row of nothing but padding would be no sequence.
            self._cut([known.get(token, _UNKNOWN) for token in analyze(text)])
            or [_UNKNOWN]
            for text in self._texts(raw_documents)
        ]
        width = self.max_length or max(map(len, rows), default=1)
        ids = np.full((len(rows), max(width, 1)), _PADDING, dtype=np.int64)
        for row, tokens in zip(ids, rows, strict=True):
            row[: len(tokens)] = tokens
        return ids

    def _cut(self, tokens: list[int]) -> list[int]:
        if self.max_length is None:
            return tokens
        if self.truncate == "pre":
            return tokens[-self.max_length :]
        return tokens[: self.max_length]

    def _check_pattern(self) -> None:
        if self.tokenizer is not None or self.analyzer != "word":
            return
        pattern: Any = self.token_pattern
        try:
            re.compile(pattern)
        except (re.error, TypeError) as error:
            raise ValueError(
                f"token_pattern={pattern!r} is no regular expression: "
                f"{error}. Correct it, or give a tokenizer"
            ) from None

    def _texts(self, documents: Iterable[Any]) -> Iterator[Any]:
        """Go through the texts, and refuse what is none."""
        # Functions of the user's may read anything.
        are_tokens = (
            self.tokenizer is not None
            and self.analyzer == "word"
            and not (self.lowercase or isinstance(self.strip_accents, str))
        )
        reads_any = self.preprocessor is not None or callable(self.analyzer)
        for i, document in enumerate(documents):
            is_nan = isinstance(document, float) and np.isnan(document)
            is_text = isinstance(document, str | bytes) or is_nan
            if not (is_text or are_tokens or reads_any):
                raise ValueError(
                    f"item {i} of the texts is {document!r}, of type "
                    f"{type(document).__name__}: give a text, '' where there is none"
                )
            yield document

    def _counter(self) -> CountVectorizer:
        """Make the vectorizer that splits texts and picks the vocabulary."""
        own = {"max_length", "truncate"}
        shared = {
            name: value
            for name, value in self.get_params(deep=False).items()
            if name not in own
        }
        return CountVectorizer(**shared)

    @property
    def vocabulary_size_(self) -> int:
        """Number of ids, those of padding and of unknown tokens included."""
        check_is_fitted(self, "vocabulary_")
        return len(self.vocabulary_) + _FIRST

    def __sklearn_tags__(self) -> Any:
        """Declare that the input is texts, not arrays."""
        tags = super().__sklearn_tags__()
        tags.input_tags.string = True
        tags.input_tags.two_d_array = False
        return tags


def _refuse_what_holds_no_texts(raw_documents: Any) -> None:
    if isinstance(raw_documents, str):
        raise ValueError("an iterable of texts is expected, got one string")
    n_axes = getattr(raw_documents, "ndim", 1)
    if n_axes != 1 and not hasattr(raw_documents, "columns"):
        raise ValueError(
            f"an iterable of texts is expected, got an array of {n_axes} axes"
            + (": give one column, such as X[:, 0]" if n_axes > 1 else "")
        )
    if hasattr(raw_documents, "columns"):
        names = [str(name) for name in raw_documents.columns]
        raise ValueError(
            f"an iterable of texts is expected, got a table with the columns {names}"
            + "".join(
                f": give one column, such as table[{name!r}], not table[[{name!r}]]"
                for name in names[:1]
            )
        )
