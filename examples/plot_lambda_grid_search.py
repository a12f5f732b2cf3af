"""
=============================================
Choosing λ and the layer sizes by grid search
=============================================

λ regularises the step from targets to weights (Eq. 7 of the paper). It is not a weight
decay, but like any regularisation it has to suit the data and the network. Deep
networks need a small one: every layer shrinks its sums a little, and after many layers
little is left of the signal. By default λ follows a rule; scikit-learn's pipelines and
grid search find what suits a table better.
"""

# %%
# The search
# ----------
# Hand-written digits of 64 pixels. The fixed batch is the whole training set, so the
# useful range of λ grows with the number of its rows. All networks have tanh, to be
# compared; step sizes, batches and stopping, which belong together, are left alone.

import warnings

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import GridSearchCV, train_test_split
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler

from sktarget import TargetSpaceClassifier

LAMBDAS = np.logspace(-1, 4, 6)
LAYERS = [(64,), (32, 32), (24,) * 6]

X, y = load_digits(return_X_y=True)
X_train, X_test, y_train, y_test = train_test_split(
    X, y, test_size=0.5, stratify=y, random_state=0
)

network = TargetSpaceClassifier(activation="tanh", random_state=0)
search = GridSearchCV(
    Pipeline([("scale", StandardScaler()), ("network", network)]),
    {"network__lam": LAMBDAS, "network__hidden_layer_sizes": LAYERS},
    cv=3,
    n_jobs=2,
)
with warnings.catch_warnings():
    # Some of the networks that a large λ silences have not converged.
    warnings.simplefilter("ignore", ConvergenceWarning)
    search.fit(X_train, y_train)

print("best parameters:")
for name, value in search.best_params_.items():
    print(f"  {name} = {value}")
print(f"cross-validated accuracy: {search.best_score_:.3f}")
print(f"test accuracy:            {search.score(X_test, y_test):.3f}")

# %%
# Accuracy by λ
# -------------
# The more layers, the sooner a large λ silences the network. Dotted lines mark what
# ``lam="auto"`` chooses, which fitted networks have as ``lam_``.

results = search.cv_results_
figure, axes = plt.subplots(figsize=(6.5, 4), layout="constrained")
for layers in LAYERS:
    rows = [p["network__hidden_layer_sizes"] == layers for p in results["params"]]
    (line, *_) = axes.errorbar(
        LAMBDAS,
        results["mean_test_score"][rows],
        yerr=results["std_test_score"][rows],
        capsize=3,
        marker="o",
        label=f"{len(layers)} × {layers[0]}",
    )
    automatic = network.set_params(hidden_layer_sizes=layers, lam="auto")
    automatic.fit(StandardScaler().fit_transform(X_train), y_train)
    axes.axvline(automatic.lam_, color=line.get_color(), linestyle=":")
axes.set(xscale="log", xlabel="λ", ylabel="mean accuracy in cross-validation")
axes.legend(title="hidden layers")
plt.show()
