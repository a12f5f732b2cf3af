"""
====================================
Target space in your own torch loop
====================================

:class:`sktarget.nn.TargetSpace` wraps an ordinary :class:`torch.nn.Module`, here a
residual network, and replaces its weights by targets. From then on it is a module like
any other: the training loop, the optimiser and the loss stay yours. The same network
is then trained by `skorch <https://skorch.readthedocs.io>`_.
"""

# %%
# An ordinary network
# -------------------
# Nothing in it knows about targets. Any control flow will do, as long as the weighted
# layers are of kinds that target space supports, such as ``nn.Linear``.

import matplotlib.pyplot as plt
import torch
from skorch import NeuralNetClassifier
from torch import Tensor, nn

from sktarget.datasets import make_two_spirals
from sktarget.nn import TargetSpace

N_EPOCHS = 300


class ResidualNetwork(nn.Module):
    """Two inputs, ``depth`` residual blocks, and one output for each class."""

    def __init__(self, width: int = 12, depth: int = 4) -> None:
        super().__init__()
        self.entrance = nn.Linear(2, width)
        self.blocks = nn.ModuleList(nn.Linear(width, width) for _ in range(depth))
        self.exit = nn.Linear(width, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.entrance(x)
        for block in self.blocks:
            x = x + torch.tanh(block(x))
        output: Tensor = self.exit(x)
        return output


points, labels = make_two_spirals()
test_points, test_labels = make_two_spirals(midpoints=True)
x, y = torch.as_tensor(points, dtype=torch.float32), torch.as_tensor(labels)
x_test = torch.as_tensor(test_points, dtype=torch.float32)
y_test = torch.as_tensor(test_labels)


# %%
# The loop
# --------
# It serves both spaces. In target space the fixed batch is the training set itself, so
# one pass both solves for the weights and measures the loss.


def train(network: nn.Module, learning_rate: float) -> list[float]:
    """Minimise the cross-entropy on the training set; return the loss curve."""
    optimizer = torch.optim.Adam(network.parameters(), lr=learning_rate)
    network.train()
    curve = []
    for _ in range(N_EPOCHS):
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(network(x), y)
        loss.backward()
        optimizer.step()
        curve.append(loss.item())
    return curve


@torch.no_grad()
def test_accuracy(network: nn.Module) -> float:
    return float((network.eval()(x_test).argmax(dim=1) == y_test).float().mean())


torch.manual_seed(0)
in_weight_space = ResidualNetwork()
in_target_space = TargetSpace(in_weight_space, fixed_batch=x, lam=1e-3)

curves = {
    "target space": train(in_target_space, learning_rate=0.01),
    "weight space": train(in_weight_space, learning_rate=0.01),
}
print(f"target space: test accuracy {test_accuracy(in_target_space):.3f}")
print(f"weight space: test accuracy {test_accuracy(in_weight_space):.3f}")

# %%
# The parameters that the optimiser saw are the targets, one matrix per layer with a row
# for each pattern of the fixed batch.

for name, parameter in in_target_space.named_parameters():
    print(f"{name:<28} {tuple(parameter.shape)}")

# %%
figure, axes = plt.subplots(figsize=(6, 4), layout="constrained")
for name, curve in curves.items():
    axes.semilogy(curve, label=name)
axes.set(xlabel="epoch", ylabel="training loss", title="A residual network")
axes.legend()

# %%
# Back to an ordinary network
# ---------------------------
# ``realise`` bakes the weights in: what it returns has ordinary parameters, and holds
# neither targets nor training data. Save, export or compile it as usual.

realised = in_target_space.realise()
print(type(realised).__name__, sum(p.numel() for p in realised.parameters()))
torch.testing.assert_close(realised(x_test), in_target_space.eval()(x_test))

# %%
# The same in skorch
# ------------------
# Arguments of ``TargetSpace`` become parameters of the net, so λ can be searched over
# as ``module__lam``.

torch.manual_seed(0)
net = NeuralNetClassifier(
    TargetSpace,
    module__module=ResidualNetwork(),
    module__fixed_batch=x,
    module__lam=1e-3,
    criterion=nn.CrossEntropyLoss,
    optimizer=torch.optim.Adam,
    lr=0.01,
    batch_size=-1,
    max_epochs=N_EPOCHS,
    train_split=None,
    verbose=0,
)
net.fit(x, y)
print(f"skorch: test accuracy {net.score(x_test, y_test.numpy()):.3f}")

# %%
plt.show()
