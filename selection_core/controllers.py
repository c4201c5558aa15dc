"""The controllers of the ablation (Table 3): a batch of candidates in, a decision for each out.

Every controller maps (S, L, D) inputs, S sequences of L candidates, to two logits per candidate
(S, L, 2), index 1 = keep, and one value per sequence (S,), pooled over its candidates. Heads start
at zero, so every candidate starts at probability 1/2 and V at 0. There is no dropout: PPO's ratio
must be exactly 1 before the first update.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from imaging_core.classifiers import parameter_count
from imaging_core.seeding import initialise
from selection_core.config import SelectionConfig


def sinusoidal_positions(length: int, width: int) -> Tensor:
    """(L, width) sines and cosines of geometrically spaced wavelengths; `width` even."""
    place = torch.arange(length, dtype=torch.float32).unsqueeze(1)
    rate = torch.exp(torch.arange(0, width, 2, dtype=torch.float32) * (-math.log(1e4) / width))
    return torch.stack([torch.sin(place * rate), torch.cos(place * rate)], -1).flatten(1)


def candidate_inputs(
    features: Tensor,  # (N, F), standardised
    labels: Tensor,  # (N,) int64
    classes: int,
    mode: str,  # "crossed" | "embedding" | "off"
) -> Tensor:
    """(N, D): what the controller sees of each candidate.

    crossed shows label × feature: f·(2y − 1) for two classes, f ⊗ onehot(y) for more. With the
    label only beside the features a controller cannot tell a wrong label without learning the
    product itself (keep-probability AUC .56 against .92 in a prototype).
    """
    if mode == "off":
        return features
    onehot = nn.functional.one_hot(labels, classes).to(features.dtype)
    if mode == "embedding":
        return torch.cat([features, onehot], 1)
    if classes == 2:
        product = features * (2 * labels - 1).to(features.dtype).unsqueeze(1)
    else:
        product = (features.unsqueeze(2) * onehot.unsqueeze(1)).flatten(1)
    return torch.cat([features, product, onehot], 1)


class Controller(nn.Module):
    """Input projection, a body that `encode`s, a policy head and a value head."""

    def __init__(self, inputs: int, width: int, hidden: int):
        super().__init__()
        self.project = nn.Linear(inputs, width)
        self.policy = nn.Linear(hidden, 2)
        self.value = nn.Linear(hidden, 1)

    def encode(self, x: Tensor) -> Tensor:
        """(S, L, width) → (S, L, hidden)."""
        raise NotImplementedError

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        encoded = self.encode(self.project(x))
        return self.policy(encoded), self.value(encoded.mean(1)).squeeze(-1)

    def attention_parameters(self) -> list[nn.Parameter]:
        """Parameters with the ablation's own learning rate (section 3.1): GRU attention only."""
        return []


class Logistic(Controller):
    """No sequence model: each candidate decided alone, by a linear map."""

    def __init__(self, inputs: int):
        super().__init__(inputs, 1, inputs)
        self.project = nn.Identity()

    def encode(self, x: Tensor) -> Tensor:
        return x


class GRU(Controller):
    """One recurrent layer read in the order of the candidates."""

    def __init__(self, inputs: int, width: int, hidden: int):
        super().__init__(inputs, width, hidden)
        self.recurrent = nn.GRU(width, hidden, batch_first=True)

    def encode(self, x: Tensor) -> Tensor:
        return self.recurrent(x)[0]


class GRUAttention(Controller):
    """GRU whose every step also sees a softmax-pooled summary of the whole sequence.

    The paper cites a reference for its attention that its text does not resolve; this is
    u_i = tanh(W h_i), α = softmax(v·u), c = Σ α_i h_i, heads on [h_i, c].
    """

    def __init__(self, inputs: int, width: int, hidden: int):
        super().__init__(inputs, width, 2 * hidden)
        self.recurrent = nn.GRU(width, hidden, batch_first=True)
        self.attend = nn.Linear(hidden, hidden)
        self.score = nn.Linear(hidden, 1, bias=False)

    def encode(self, x: Tensor) -> Tensor:
        states = self.recurrent(x)[0]
        weights = self.score(torch.tanh(self.attend(states))).softmax(1)  # (S, L, 1)
        summary = (weights * states).sum(1, keepdim=True)
        return torch.cat([states, summary.expand_as(states)], -1)

    def attention_parameters(self) -> list[nn.Parameter]:
        return [*self.attend.parameters(), *self.score.parameters()]


class Transformer(Controller):
    """The paper's controller: encoder layers of multi-head attention, eq. (1)-(3).

    Eq. (1) prints V inside the softmax; this is softmax(QKᵀ/√d_k) V.
    """

    def __init__(
        self, inputs: int, width: int, *, layers: int, heads: int, feedforward: int, positions: bool
    ):
        super().__init__(inputs, width, width)
        self.positions = positions
        layer = nn.TransformerEncoderLayer(
            width, heads, feedforward, dropout=0.0, batch_first=True, norm_first=True
        )
        self.encoder = nn.TransformerEncoder(layer, layers, enable_nested_tensor=False)

    def encode(self, x: Tensor) -> Tensor:
        if self.positions:
            x = x + sinusoidal_positions(x.shape[1], x.shape[2]).to(x)
        return self.encoder(x)


def _gru_parameters(inputs: int, width: int, hidden: int, *, attention: bool) -> int:
    heads = (2 * hidden if attention else hidden) * 3 + 3
    pooled = hidden * hidden + 2 * hidden if attention else 0
    return (inputs + 1) * width + 3 * hidden * (width + hidden + 2) + pooled + heads


def matched_hidden(inputs: int, width: int, target: int, *, attention: bool) -> int:
    """The GRU state size whose controller comes nearest to `target` parameters."""
    hidden = 1
    while _gru_parameters(inputs, width, hidden + 1, attention=attention) <= target:
        hidden += 1
    low, high = (
        _gru_parameters(inputs, width, h, attention=attention) for h in (hidden, hidden + 1)
    )
    return hidden if target - low <= high - target else hidden + 1


def _matched(config: SelectionConfig, inputs: int, *, attention: bool) -> int:
    """The state of a GRU controller: `controller_width`, or sized to the transformer's count."""
    width = config.controller_width
    if config.controller_match == "off":
        return width
    target = parameter_count(_transformer(config, inputs))
    return matched_hidden(inputs, width, target, attention=attention)


def _gru(config: SelectionConfig, inputs: int) -> Controller:
    return GRU(inputs, config.controller_width, _matched(config, inputs, attention=False))


def _gru_attention(config: SelectionConfig, inputs: int) -> Controller:
    return GRUAttention(inputs, config.controller_width, _matched(config, inputs, attention=True))


def _transformer(config: SelectionConfig, inputs: int) -> Controller:
    return Transformer(
        inputs,
        config.controller_width,
        layers=config.controller_layers,
        heads=config.controller_heads,
        feedforward=config.controller_feedforward,
        positions=config.positions == "on",
    )


def _logistic(config: SelectionConfig, inputs: int) -> Controller:
    return Logistic(inputs)


CONTROLLERS: dict[str, Callable[[SelectionConfig, int], Controller]] = {
    "gru": _gru,
    "gru_attention": _gru_attention,
    "transformer": _transformer,
    "logistic": _logistic,
}


def build_controller(
    config: SelectionConfig, *, inputs: int, generator: torch.Generator
) -> Controller:
    """The controller that `config` names, drawn from `generator`, heads at zero.

    With `controller_match` the GRU state is sized so that both GRU controllers have as many
    parameters as the transformer; else it is `controller_width`.
    """
    controller = CONTROLLERS[config.controller](config, inputs)
    initialise(controller, generator)
    for head in (controller.policy, controller.value):
        nn.init.zeros_(head.weight)
        nn.init.zeros_(head.bias)
    return controller
