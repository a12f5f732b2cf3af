"""
=======================================
Images, and the average of two networks
=======================================

A convolutional network in target space reads the hand-written digits of scikit-learn.
Two such networks, which differ in their seed and so in their initial weights, their
fixed batch and their mini-batches, err on different digits, and the average of their
probabilities errs less (Sec. 5.2 of the paper). Scikit-learn's
``VotingClassifier(voting="soft")`` computes that average.
"""

# %%
# The networks
# ------------
# The images come as rows of 64 pixels; `image_shape` says how to read them. The network
# has two convolutions of 3 by 3 pixels, max-pooling by 2 after the second, then a dense
# layer.

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits
from sklearn.ensemble import VotingClassifier
from sklearn.model_selection import train_test_split

from sktarget import TargetSpaceClassifier

X, y = load_digits(return_X_y=True)
X_train, X_test, y_train, y_test = train_test_split(
    X / 16, y, test_size=0.5, stratify=y, random_state=0
)


def network(seed: int) -> TargetSpaceClassifier:
    """Make one of the networks."""
    return TargetSpaceClassifier(
        hidden_layer_sizes=(64,),
        conv_layers=[(3, 16, 1), (3, 32, 2)],
        image_shape=(1, 8, 8),
        dropout=0.05,
        max_iter=15,
        random_state=seed,
    )


# %%
# Their average
# -------------

ensemble = VotingClassifier(
    [(f"seed {seed}", network(seed)) for seed in (0, 1)], voting="soft"
)
ensemble.fit(X_train, y_train)

for name, member in ensemble.named_estimators_.items():
    # The ensemble trains its members on the indices of the labels.
    print(f"{name}: {np.mean(ensemble.classes_[member.predict(X_test)] == y_test):.4f}")
print(f"average: {ensemble.score(X_test, y_test):.4f}")

# %%
# Where they disagree
# -------------------
# A few digits that the networks read differently, and what their average makes of them.

first, second = (member.predict(X_test) for member in ensemble.estimators_)
disputed = np.flatnonzero(first != second)[:8]
figure, axes = plt.subplots(1, max(len(disputed), 1), figsize=(10, 2), squeeze=False)
for ax, i in zip(axes[0], disputed, strict=False):
    vote = ensemble.predict(X_test[[i]])[0]
    ax.imshow(X_test[i].reshape(8, 8), cmap="gray_r")
    ax.set_title(f"{first[i]} or {second[i]}?\n{vote}, is {y_test[i]}")
for ax in axes[0]:
    ax.set_axis_off()
plt.show()
