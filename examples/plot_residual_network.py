"""
===========================
Your own residual network
===========================

`module` takes any network. Here it is a small residual one (He et al., 2016) for the
hand-written digits: blocks of two convolutions with a shortcut around them, and strides
in place of pooling. The estimator replaces all its weights by targets, including those
of the shortcuts; the order in which the layers run is the cascade.
"""

# %%
# The network
# -----------
# `module` is called with the numbers of inputs and outputs, for images those of
# channels and outputs. A class of PyTorch modules will do.

import warnings

import matplotlib.pyplot as plt
from sklearn.datasets import load_digits
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import train_test_split
from torch import Tensor, nn

from sktarget import TargetSpaceClassifier


class Block(nn.Module):
    """Two convolutions, and a shortcut that brings their input to the same shape."""

    def __init__(self, n_in: int, n_out: int, stride: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(n_in, n_out, 3, stride=stride, padding=1)
        self.second = nn.Conv2d(n_out, n_out, 3, padding=1)
        self.shortcut = nn.Conv2d(n_in, n_out, 1, stride=stride)

    def forward(self, x: Tensor) -> Tensor:
        """Map (n, n_in, h, w) to (n, n_out, h / stride, w / stride)."""
        inner = nn.functional.leaky_relu(self.first(x), 0.2)
        return nn.functional.leaky_relu(self.shortcut(x) + self.second(inner), 0.2)


class ResidualNetwork(nn.Module):
    """Three blocks, the average over what is left of the image, and a dense layer."""

    def __init__(self, n_channels: int, n_outputs: int) -> None:
        super().__init__()
        self.blocks = nn.Sequential(
            Block(n_channels, 16, 1), Block(16, 32, 2), Block(32, 32, 2)
        )
        self.last = nn.Linear(32, n_outputs)

    def forward(self, x: Tensor) -> Tensor:
        """Map images (n, channels, h, w) to the bare outputs (n, n_outputs)."""
        return self.last(self.blocks(x).mean((2, 3)))


# %%
# In either space
# ---------------
# The very same module, with its weights learnt through targets and directly.

images, y = load_digits(return_X_y=True)
X = (images / 16).astype("float32").reshape(-1, 1, 8, 8)
X_train, X_test, y_train, y_test = train_test_split(
    X, y, test_size=0.5, stratify=y, random_state=0
)
RATES = {"targets": 0.1, "weights": 0.003}

figure, ax = plt.subplots(figsize=(6, 4), layout="constrained")
for space, rate in RATES.items():
    network = TargetSpaceClassifier(
        module=ResidualNetwork,
        parameterization=space,
        learning_rate_init=rate,
        batch_size=100,
        max_iter=15,
        random_state=0,
    )
    with warnings.catch_warnings():
        # Fifteen epochs are enough for the comparison.
        warnings.simplefilter("ignore", ConvergenceWarning)
        network.fit(X_train, y_train)
    print(f"{space}: test accuracy {network.score(X_test, y_test):.4f}")
    ax.plot(network.loss_curve_, label=space)
ax.set(xlabel="epoch", ylabel="training loss", yscale="log")
ax.legend(title="learnt")
plt.show()

# %%
# What was trained is an ordinary module again:

print(network.module_)
