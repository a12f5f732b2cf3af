"""
What target space costs
=======================

The measurements of ``examples/benchmarks/run_all.py`` that are kept with the source, as
plots. The tables behind them, with the processor and the versions, are on the page
"Speed".
"""

# %%
# The results
# -----------
# One list of rows per part of the suite; a row holds a case and its figures.

import json
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt

path = Path("benchmarks/results.json")
if not path.exists():  # called from the folder above
    path = "examples" / path
content = json.loads(path.read_text("utf-8"))
results: dict[str, list[dict[str, Any]]] = content["results"]
print(content["environment"])


def column(part: str, name: str, **where: Any) -> list[Any]:
    """Return a column of the rows that match `where`."""
    rows = results.get(part, [])
    return [r[name] for r in rows if all(r[k] == v for k, v in where.items())]


# %%
# An iteration beside one in weight space
# ---------------------------------------
# Where widths are small, the calls themselves take most of the time; in wide and deep
# networks, the products do. The floor counts multiplications, without the solves.

figure, axes = plt.subplots(1, 3, figsize=(10, 3.2), layout="constrained")
for axis, (part, name) in zip(
    axes,
    [
        ("dense over width", "width"),
        ("dense over depth", "depth"),
        ("dense over n̄_b", "n̄_b"),
    ],
    strict=True,
):
    x = column(part, name)
    axis.plot(x, column(part, "ratio"), marker="o", label="measured")
    axis.plot(x, column(part, "floor"), linestyle="--", label="floor")
    axis.set(xscale="log", xlabel=name)
    axis.set_ylim(0, 1.1 * max(column(part, "ratio") + column(part, "floor")))
axes[0].set(ylabel="time, target / weight space", xlabel="units per layer")
axes[1].set(xlabel="hidden layers")
axes[2].set(xlabel="rows of the fixed batch (mini-batch: 1000)")
_ = axes[0].legend()

# %%
# Growth
# ------
# With the length of the sequences, and with the number of rows in one epoch of ``fit``,
# in mini-batches of 200.

figure, axes = plt.subplots(1, 2, figsize=(8, 3.2), layout="constrained")
part = "recurrent over length"
for cell in dict.fromkeys(column(part, "cell")):
    for space, style in [("weights", "--"), ("targets", "-")]:
        axes[0].plot(
            column(part, "steps", cell=cell),
            column(part, f"{space}, ms", cell=cell),
            style,
            marker="o",
            label=f"{cell}, {space}",
        )
axes[0].set(xscale="log", yscale="log", xlabel="steps", ylabel="ms per iteration")
for name in ("TargetSpaceClassifier", "MLPClassifier"):
    axes[1].plot(
        column("fit over rows", "rows"),
        column("fit over rows", f"{name}, s"),
        marker="o",
        label=name,
    )
axes[1].set(xscale="log", yscale="log", xlabel="rows", ylabel="s per epoch")
for axis in axes:
    axis.legend()

# %%
# Time to an accuracy
# -------------------
# An iteration costs more, but fewer are needed. Contenders that never reached the
# accuracy are left out.

parts = [
    name
    for name, rows in results.items()
    if name.endswith("%") and any(row["s"] for row in rows)
]
size = (7, 1 + 1.2 * len(parts))
figure, panels = plt.subplots(len(parts), figsize=size, layout="constrained")
for axis, part in zip(panels, parts, strict=True):
    reached = {row["case"]: row["s"] for row in results[part] if row["s"]}
    axis.barh(list(reached), list(reached.values()))
    axis.invert_yaxis()
    axis.set_title(part, loc="left", fontsize="medium")
panels[-1].set_xlabel("s")
