"""
===============================
Two spirals, in target space
===============================

Two classes wind around each other three times. The problem is small, but a network has
to bend its decision surface so often that gradient descent on the weights gets lost
[1]_. Here the same small network is trained twice, with the same optimiser and the same
number of epochs: once by learning its *targets*, once by learning its weights. The
setting is that of Sec. 5.1 of [2]_.

.. [1] K. J. Lang and M. J. Witbrock, "Learning to tell two spirals apart",
   Proceedings of the 1988 Connectionist Models Summer School, 1988.
.. [2] M. Fairbank, S. Samothrakis and L. Citi, "Deep Learning in Target Space",
   Journal of Machine Learning Research 23, 2022.
"""

# %%
# The data
# --------
# 97 training points on each arm. The test points lie on the same arms, half-way between
# two training points each.

import argparse
import time
import warnings
from pathlib import Path

import matplotlib.pyplot as plt
from sklearn.exceptions import ConvergenceWarning
from sklearn.inspection import DecisionBoundaryDisplay
from threadpoolctl import threadpool_limits

from sktarget import TargetSpaceClassifier
from sktarget.datasets import make_two_spirals

parser = argparse.ArgumentParser(description="Two spirals, in target space.")
parser.add_argument(
    "--output",
    type=Path,
    default=Path("two_spirals.png"),
    help="where to save the picture (default: %(default)s)",
)
output = parser.parse_args().output

X_train, y_train = make_two_spirals()
X_test, y_test = make_two_spirals(midpoints=True)

# %%
# Two ways to train one network
# -----------------------------
# Three hidden layers of five tanh units, each layer connected to all before it. In
# target space the fixed batch is the whole training set (``fixed_batch_size=None``), so
# a single pass solves for the weights and measures the loss.

N_EPOCHS = 1500


def make_classifier(parameterization: str) -> TargetSpaceClassifier:
    return TargetSpaceClassifier(
        hidden_layer_sizes=(5, 5, 5),
        shortcuts=True,
        activation="tanh",
        parameterization=parameterization,
        lam=1e-3,
        fixed_batch_size=None,
        target_init="normal",
        target_scale=1.0,
        solver="adam",
        learning_rate_init=0.01,
        batch_size=len(X_train),
        alpha=0.0,
        # Spend the whole budget: neither network may stop early.
        max_iter=N_EPOCHS,
        tol=0.0,
        n_iter_no_change=N_EPOCHS,
        random_state=0,
    )


classifiers = {
    "Target space": make_classifier("targets"),
    "Weight space": make_classifier("weights"),
}

print(f"{'':<14}{'train':>8}{'test':>8}{'loss':>10}{'seconds':>9}")
for name, classifier in classifiers.items():
    start = time.perf_counter()
    # Matrices this small gain nothing from a second thread, and on a busy machine would
    # have to wait for it.
    with threadpool_limits(1), warnings.catch_warnings():
        # The budget is meant to run out before the loss has settled.
        warnings.simplefilter("ignore", ConvergenceWarning)
        classifier.fit(X_train, y_train)
    seconds = time.perf_counter() - start
    print(
        f"{name:<14}"
        f"{classifier.score(X_train, y_train):8.1%}"
        f"{classifier.score(X_test, y_test):8.1%}"
        f"{classifier.loss_:10.2g}"
        f"{seconds:9.1f}"
    )

# %%
# What they learnt
# ----------------
# The picture says more than the accuracy: in target space the network has found the two
# spirals, in weight space it has cut up the plane until most of the training points
# fitted.

figure, axes = plt.subplots(1, 3, figsize=(13, 4.2), layout="constrained")
*surfaces, curves = axes

for axis, (name, classifier) in zip(surfaces, classifiers.items(), strict=True):
    DecisionBoundaryDisplay.from_estimator(
        classifier,
        X_train,
        response_method="predict_proba",
        plot_method="pcolormesh",
        grid_resolution=200,
        cmap="RdBu",
        vmin=0.0,
        vmax=1.0,
        alpha=0.6,
        ax=axis,
    )
    for points, labels, marker, part in (
        (X_train, y_train, "o", "train"),
        (X_test, y_test, "^", "test"),
    ):
        axis.scatter(
            *points.T,
            c=labels,
            marker=marker,
            s=18,
            cmap="RdBu",
            edgecolors="white",
            linewidths=0.6,
            label=part,
        )
    accuracy = classifier.score(X_test, y_test)
    axis.set(title=f"{name}: {accuracy:.1%} on test points", aspect="equal")
surfaces[0].legend(loc="upper right")

for name, classifier in classifiers.items():
    curves.semilogy(classifier.loss_curve_, label=name)
curves.set(title="Learning curves", xlabel="epoch", ylabel="training loss")
curves.legend()

figure.savefig(output, dpi=150)
print(f"Picture saved to {output.resolve()}")
