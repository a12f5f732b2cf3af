"""
Parts of speech
===============

Every word of sentences of unequal lengths, given as lists, gets a label: the universal
parts of speech of the English Web Treebank.  A bidirectional network tags words by
their ids, in target space and in weight space.

``python examples/part_of_speech.py --data DIR`` needs ``ud_ewt_pos.csv.xz`` with the
columns ``split``, ``sentence``, ``token`` and ``upos``.  Without it, sentences of a
small, made-up grammar stand in; ``--quick`` uses few sentences.
"""

import argparse
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from sktarget import TargetSpaceSequenceClassifier

Sentences = list[list[str]]


def load(folder: Path) -> dict[str, tuple[Sentences, Sentences]]:
    """Read words and tags of the sentences of each split."""
    table = pd.read_csv(folder / "ud_ewt_pos.csv.xz", keep_default_na=False)
    splits = {}
    for split, part in table.groupby("split"):
        columns = part.groupby("sentence", sort=False)[["token", "upos"]].agg(list)
        splits[str(split)] = columns["token"].tolist(), columns["upos"].tolist()
    # Without a training set, the development set, though small, will do.
    if "train" not in splits:
        splits["train"] = splits["dev"]
    return splits


def made_up(n: int = 400) -> dict[str, tuple[Sentences, Sentences]]:
    """Make up sentences in which the tag of a word depends on its neighbours."""
    rng = np.random.default_rng(0)
    words = {"DET": ["the", "a"], "NOUN": ["walk", "run", "talk"], "ADV": ["fast"]}
    words["VERB"] = words["NOUN"]
    splits = {}
    for split in ("train", "test"):
        sentences: Sentences = []
        tags: Sentences = []
        for _ in range(n):
            tags.append(["DET", "NOUN", "VERB"] + ["ADV"] * int(rng.integers(3)))
            tags[-1] += ["DET", "NOUN"] * int(rng.integers(3))
            sentences.append([str(rng.choice(words[tag])) for tag in tags[-1]])
        splits[split] = sentences, tags
    return splits


class Vocabulary:
    """Ids from 2 for words that occur at least twice; 1 for all others."""

    def __init__(self, sentences: Sentences) -> None:
        counts = pd.Series([self.key(w) for s in sentences for w in s]).value_counts()
        known = counts.index[counts > 1]
        self.ids = {word: k for k, word in enumerate(known, 2)}

    @staticmethod
    def key(word: str) -> str:
        """Return the word in lower case, and "0" for all numbers."""
        return "0" if word[:1].isdigit() else word.lower()

    def __call__(self, sentences: Sentences) -> list[np.ndarray]:
        """Return the ids of every sentence."""
        return [
            np.array([self.ids.get(self.key(word), 1) for word in s]) for s in sentences
        ]

    def __len__(self) -> int:
        return len(self.ids) + 2


def most_frequent(train: Any, test: Any) -> float:
    """Return the accuracy of tagging each word as it is most often tagged."""
    pairs = pd.DataFrame(
        {"word": np.concatenate(train[0]), "tag": np.concatenate(train[1])}
    )
    usual = pairs.groupby("word")["tag"].agg(lambda tags: tags.mode()[0])
    found = pd.Series(np.concatenate(test[0])).map(usual).fillna("NOUN")
    return float((found.to_numpy() == np.concatenate(test[1])).mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, help="folder with the treebank")
    parser.add_argument("--quick", action="store_true", help="500 sentences")
    parser.add_argument("--cell", default="rnn", choices=["rnn", "lstm", "gru"])
    parser.add_argument("--epochs", type=int, default=8)
    arguments = parser.parse_args()
    splits = made_up() if arguments.data is None else load(arguments.data)
    n = 500 if arguments.quick else None
    (words, tags), (test_words, test_tags) = (
        (part[:n], labels[:n]) for part, labels in (splits["train"], splits["test"])
    )
    known = Vocabulary(words)
    X, X_test = known(words), known(test_words)
    usual = most_frequent((words, tags), (test_words, test_tags))
    print(f"{len(X)} sentences, {len(known)} ids; most frequent tag: {usual:.4f}")
    for parameterization in ("targets", "weights"):
        model = TargetSpaceSequenceClassifier(
            cell=arguments.cell,
            recurrent_layer_sizes=(64,),
            bidirectional=True,
            return_sequences=True,
            vocabulary_size=len(known),
            embedding_dim=48,
            fixed_sequence_length=30,
            batch_size=32,
            fixed_batch_size=40,
            parameterization=parameterization,
            random_state=0,
        )
        start = time.perf_counter()
        for epoch in range(1, arguments.epochs + 1):
            model.partial_fit(X, tags)
            accuracy = model.score(X_test, test_tags)
            seconds = time.perf_counter() - start
            print(
                f"{parameterization}: epoch {epoch}, loss {model.loss_:.4f}, "
                f"test accuracy {accuracy:.4f}, {seconds:.0f} s",
                flush=True,
            )


if __name__ == "__main__":
    main()
