"""
When to use target space
========================

The study of ``examples/benchmarks/study_defaults.py``, whose results are kept with the
source, as plots: the estimators with their defaults beside scikit-learn's, score by
depth, and score by epoch and by second.
"""

# %%
# The results
# -----------

import json
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np

path = Path("benchmarks/defaults.json")
if not path.exists():  # called from the folder above
    path = "examples" / path
study: dict[str, Any] = json.loads(path.read_text("utf-8"))


def mean(run: dict[str, list[float]]) -> float:
    """Average the test scores of a run over its splits."""
    return float(np.mean(run["scores"]))


# %%
# As they come
# ------------
# No arguments, standardised inputs: how far target space is ahead of scikit-learn's MLP
# on each table, in accuracy (blue) or R² (orange). A point is the mean over three
# splits, a bar reaches from the smallest to the largest difference.  ``MLPRegressor``
# gets standardised outputs, without which it would fall far outside the picture.

tables = study["defaults"]
ahead = {
    name: np.subtract(
        runs["target space"]["scores"], runs.get("MLP, y scaled", runs["MLP"])["scores"]
    )
    for name, runs in tables.items()
}
names = sorted(ahead, key=lambda name: ahead[name].mean())
figure, axis = plt.subplots(figsize=(6, 4.5), layout="constrained")
axis.axvline(0, color="gray", lw=1)
for place, name in enumerate(names):
    kind = "C1" if "MLP, y scaled" in tables[name] else "C0"
    axis.plot([ahead[name].min(), ahead[name].max()], [place] * 2, color=kind)
    axis.plot(ahead[name].mean(), place, "o", color=kind)
axis.set_yticks(range(len(names)), names)
_ = axis.set(xlabel="test score of target space minus that of the MLP")

# %%
# By depth
# --------
# Hidden layers of 28. Weight space has seven settings, each with the most epochs that
# target space may use, even if target space stops earlier.

depth = study["depth"]
in_a_row = min(5, len(depth))
figure, grid = plt.subplots(
    -(-len(depth) // in_a_row),
    in_a_row,
    figsize=(2.6 * in_a_row, 3.2 * -(-len(depth) // in_a_row)),
    layout="constrained",
)
axes = np.atleast_1d(grid).ravel()
for axis, (name, by_depth) in zip(axes, depth.items(), strict=False):
    x = [int(layers) for layers in by_depth]
    for label in by_depth[str(x[0])]:
        ours = label == "target space"
        axis.plot(
            x,
            [mean(by_depth[str(layers)][label]) for layers in x],
            "o-" if ours else ".--",
            lw=2 if ours else 1,
            label=label,
        )
    low = min(mean(runs["target space"]) for runs in by_depth.values())
    axis.set(title=name, xlabel="hidden layers", xscale="log", ylim=(low - 0.15, None))
    axis.set_xticks(x, [str(layers) for layers in x])
    axis.minorticks_off()
axes[0].set_ylabel("test score")
_ = axes[0].legend(fontsize=6)

# %%
# By epoch and by second
# ----------------------
# 16 layers of 28, one run each, nothing held out. In target space an epoch is a single
# step with all rows.

course = study["course"]
figure, grid = plt.subplots(
    len(course), 2, figsize=(8, 3 * len(course)), layout="constrained", sharey="row"
)
for row, (name, runs) in zip(np.atleast_2d(grid), course.items(), strict=True):
    for label, run in runs.items():
        width = 2 if label == "target space" else 1
        epochs = np.arange(1, 1 + len(run["scores"]))
        row[0].plot(epochs, run["scores"], lw=width, label=label)
        row[1].plot(run["seconds"], run["scores"], lw=width)
    row[0].set(title=name, xlabel="epoch", ylabel="test accuracy")
    row[1].set(xlabel="seconds", xscale="log")
    row[0].legend(fontsize=7, loc="lower right")
