"""
===================
Outliers and counts
===================

What a regressor minimises decides what it predicts: squared errors lead to the mean,
absolute errors to the median, and the deviance of Poisson's distribution to the mean of
counts, of which the network learns the logarithm.
"""

# %%
# Outliers
# --------
# A wave, and one measurement in twenty that went wrong. Squared errors chase it.

import matplotlib.pyplot as plt
import numpy as np

from sktarget import TargetSpaceRegressor
from sktarget.plotting import TrainingCurveDisplay

rng = np.random.default_rng(0)
x = np.sort(rng.uniform(-3, 3, size=300))
truth = np.sin(2 * x) + 0.3 * x
y = truth + 0.1 * rng.normal(size=300)
wrong = rng.uniform(size=300) < 0.05
y[wrong] += 6.0

figure, axes = plt.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
axes[0].plot(x, y, ".", color="0.7", ms=4)
axes[0].plot(x, truth, "k:", label="truth")
models = {}
for loss in ("squared_error", "absolute_error"):
    model = TargetSpaceRegressor((30, 30, 30), loss=loss, random_state=0)
    models[loss] = model.fit(x[:, None], y)
    found = model.predict(x[:, None])
    axes[0].plot(x, found, label=loss)
    print(f"{loss:<15} mean distance from the truth {abs(found - truth).mean():.3f}")
axes[0].legend()
axes[0].set(xlabel="x", ylabel="y", ylim=(-3, 4), title="One in twenty is wrong")

# %%
# Counts
# ------
# Visitors by the hour, few at night and many at noon. The network gives logarithms, so
# that predictions are positive, and a small count weighs as much as it should.

hour = rng.uniform(0, 24, size=800)
mean = np.exp(1.5 - 3 * np.cos(hour / 24 * 2 * np.pi))
visitors = rng.poisson(mean)

at = np.linspace(0, 24, 200)
axes[1].plot(hour, visitors + 0.3, ".", color="0.7", ms=3)
axes[1].plot(at, np.exp(1.5 - 3 * np.cos(at / 24 * 2 * np.pi)), "k:", label="truth")
for loss in ("squared_error", "poisson"):
    model = TargetSpaceRegressor((30, 30, 30), loss=loss, random_state=0)
    model.fit(hour[:, None], visitors)
    axes[1].plot(at, model.predict(at[:, None]).clip(0.05), label=loss)
axes[1].legend()
axes[1].set(yscale="log", xlabel="hour", ylabel="visitors", title="Counts")

# %%
# The course of a fit
# -------------------
# A tenth of the rows, at least forty, is held out to stop by, and learnt in the end.

TrainingCurveDisplay.from_estimator(models["absolute_error"])
plt.show()
