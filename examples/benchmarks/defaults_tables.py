"""The tables of the documentation, from the results of ``study_defaults.py``.

    python examples/benchmarks/defaults_tables.py

writes ``defaults.md`` from ``defaults.json``, both beside this file.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import rankdata
from study_defaults import CHOOSE, REPORT, networks

HERE = Path(__file__).parent
Runs = dict[str, dict[str, list[float]]]


def table(head: list[str], rows: list[list[str]]) -> str:
    """Return a table in Markdown."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def spread(runs: Runs, method: str) -> str:
    """Return mean and deviation of a method's scores; nothing where it did not run."""
    if method not in runs:
        return ""
    scores = runs[method]["scores"]
    return f"{np.mean(scores):.3f} ± {np.std(scores):.3f}"


def means_and_ranks(
    found: dict[str, Runs], labels: list[str]
) -> tuple[np.ndarray, np.ndarray]:
    """Return mean scores, one row per table, and the mean rank of each label."""
    means = np.array(
        [[np.mean(r[m]["scores"]) for m in labels] for r in found.values()]
    )
    return means, np.mean([rankdata(-row) for row in means], axis=0)


def of_halves(found: dict[str, Runs]) -> str:
    """Compare the estimators with their defaults, over the halves of the tables."""
    rows = []
    for title, half in (("chose the defaults", CHOOSE), ("held back", REPORT)):
        for kind, names in half.items():
            runs = {name: found[name] for name in names if name in found}
            labels = networks(next(iter(runs.values())))
            means, ranks = means_and_ranks(runs, labels)
            measure = "accuracy" if kind == "classes" else "$R^2$"
            for j, label in enumerate(labels):
                gap = max(0.0, np.max(means[:, labels.index("MLP")] - means[:, j]))
                times = [np.median(run[label]["seconds"]) for run in runs.values()]
                rows.append(
                    [
                        "" if j else f"{title}, {measure}",
                        label,
                        f"{ranks[j]:.2f}",
                        f"{means[:, j].mean():.3f}",
                        "" if label == "MLP" else f"{gap:.3f}",
                        f"{np.mean(times):.1f}",
                    ]
                )
    head = ["tables", "", "mean rank", "mean score", "most behind", "seconds"]
    return table(head, rows)


def table_by_table(found: dict[str, Runs]) -> str:
    """Compare the estimators with their defaults, on each table."""
    methods = ["target space", "MLP", "MLP, y scaled", "weight space", "trees"]
    rows = [[name, *(spread(runs, m) for m in methods)] for name, runs in found.items()]
    return table(["", *methods], rows)


def best_of(runs: Runs) -> str:
    """Return the name of the setting with the best mean score."""
    return max(runs, key=lambda label: float(np.mean(runs[label]["scores"])))


def comparison(ours: Runs, theirs: Runs) -> list[str]:
    """Compare the best settings of both spaces: scores, lead, and which they are."""
    mine, other = best_of(ours), best_of(theirs)
    ahead = np.subtract(ours[mine]["scores"], theirs[other]["scores"])
    lead = f"{ahead.mean():+.3f} ± {ahead.std():.3f}"
    return [spread(ours, mine), spread(theirs, other), lead, mine, other]


def in_both_spaces(runs: Runs) -> tuple[Runs, Runs]:
    """Separate target space with its defaults from the settings of weight space."""
    theirs = {label: run for label, run in runs.items() if label != "target space"}
    return {"defaults": runs["target space"]}, theirs


def by_depth(found: dict[str, dict[str, Runs]]) -> str:
    """Compare target space with the best of weight space, depth by depth."""
    rows = []
    for depth in next(iter(found.values())):
        for name, by_layers in found.items():
            *scores, _, which = comparison(*in_both_spaces(by_layers[depth]))
            rows.append([depth, name, *scores, which])
    head = ["layers", "", "target space", "best of weight space", "ahead by", "which"]
    return table(head, rows)


def both_tuned(
    found: dict[str, dict[str, Runs]], tuned: dict[str, dict[str, Runs]]
) -> str:
    """Compare the best of target space with the best of weight space."""
    rows = []
    for depth in next(iter(tuned.values())):
        for name, by_layers in tuned.items():
            ours, theirs = in_both_spaces(found[name][depth])
            compared = comparison(ours | by_layers[depth], theirs)
            rows.append([depth, name, *compared])
    head = ["layers", "", "best of target space", "best of weight space", "ahead by"]
    return table([*head, "which", "which of weight space"], rows)


def single_rules(found: dict[str, Runs]) -> str:
    """Compare the defaults with one of them replaced."""
    labels = list(next(iter(found.values())))
    means, ranks = means_and_ranks(found, labels)
    rows = [
        [label, f"{means[:, j].mean():.3f}", f"{ranks[j]:.1f}"]
        for j, label in enumerate(labels)
    ]
    return table(["", "mean score", "mean rank"], rows)


def marked(parts: dict[str, str]) -> str:
    """Join tables, each between marks by which pages include it."""
    return "\n".join(
        f"<!-- {name} -->\n\n{text}\n\n<!-- end of {name} -->\n"
        for name, text in parts.items()
    )


def as_markdown(found: dict[str, Any]) -> str:
    """Return all tables, each between comments that name it."""
    parts = {
        "halves": of_halves(found["defaults"]),
        "tables": table_by_table(found["defaults"]),
        "depth": by_depth(found["depth"]),
        "tuned": both_tuned(found["depth"], found["tuned"]),
        "rules": single_rules(found["rules"]),
    }
    return marked(parts)


if __name__ == "__main__":
    results = json.loads((HERE / "defaults.json").read_text("utf-8"))
    (HERE / "defaults.md").write_text(as_markdown(results), "utf-8")
