"""The encoder behind detoxify's classifiers in float32: BERT (Devlin et al. 2019) and RoBERTa (Liu et al. 2019).

Post-norm layers, learned positions, exact GELU, and a head on the first token: logits = out(tanh(dense(h[0]))). The two
families differ in how positions are counted. Matrix products are asked for in full precision: a score that depends on
the hardware's shortcuts would not be pinned by its weights.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from base_model.attention import MASKED
from base_model.biased import layer_norm
from training.errors import BadInput


@dataclass(frozen=True, kw_only=True)
class EncoderConfig:
    """Shape of a classifier.

    Attributes:
        family: "bert" (positions 0, 1, ...) or "roberta" (padding_id + 1, ..., counting all but padding tokens).
        layers: number of layers.
        heads: attention heads; the width is a multiple of them.
        width: D.
        hidden: inner width of the MLP.
        vocab_size: rows of the word embedding.
        positions: rows of the position embedding.
        epsilon: of the norms.
        padding_id: the token that fills up a row.
        max_tokens: longer texts are cut to so many tokens.
        labels: what is scored, in the order of the logits.
    """

    family: Literal["bert", "roberta"]
    layers: int
    heads: int
    width: int
    hidden: int
    vocab_size: int
    positions: int
    epsilon: float
    padding_id: int
    max_tokens: int
    labels: tuple[str, ...]

    def __post_init__(self):
        """Check that the sizes fit one another."""
        sizes = (self.layers, self.heads, self.width, self.hidden, self.vocab_size, self.positions, self.max_tokens)
        whole = all(type(size) is int for size in (*sizes, self.padding_id)) and isinstance(self.epsilon, float)
        if not whole or self.family not in ("bert", "roberta") or min(sizes) < 1 or self.width % self.heads:
            raise BadInput(f"no such encoder: {self}")
        room = self.positions - (self.padding_id + 1 if self.family == "roberta" else 0)
        known = 0 <= self.padding_id < self.vocab_size and 0 < self.epsilon < 1 and self.labels
        if not (2 < self.max_tokens <= room and known):
            raise BadInput(f"no such encoder, with room for {room} tokens: {self}")

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Every parameter's shape; the layers are stacked along the first axis."""
        d, f, n = self.width, self.hidden, self.layers
        layer = {
            "query": (d, d), "key": (d, d), "value": (d, d), "output": (d, d), "up": (d, f), "down": (f, d)
        }  # fmt: skip
        shapes: dict[str, tuple[int, ...]] = {
            "word": (self.vocab_size, d), "position": (self.positions, d), "type": (d,),
            "norm.weight": (d,), "norm.bias": (d,),
            "head.dense.kernel": (d, d), "head.dense.bias": (d,),
            "head.out.kernel": (d, len(self.labels)), "head.out.bias": (len(self.labels),),
        }  # fmt: skip
        for name, (rows, columns) in layer.items():
            shapes |= {f"layers.{name}.kernel": (n, rows, columns), f"layers.{name}.bias": (n, columns)}
        for name in ("attention_norm", "mlp_norm"):
            shapes |= {f"layers.{name}.weight": (n, d), f"layers.{name}.bias": (n, d)}
        return shapes


def logical_axes(name: str) -> tuple[str | None, ...]:
    """How a parameter is split over a mesh, in the names of training/sharding.py's table: the big kernels only."""
    axes = {
        "layers.query.kernel": (None, "embed", "heads"), "layers.key.kernel": (None, "embed", "heads"),
        "layers.value.kernel": (None, "embed", "heads"), "layers.output.kernel": (None, "heads", "embed"),
        "layers.up.kernel": (None, "embed", "mlp"), "layers.down.kernel": (None, "mlp", "embed"),
    }  # fmt: skip
    return axes.get(name, ())


class Rows(NamedTuple):
    """Texts one after another, several in a row.

    Attributes:
        tokens: ids, the padding token behind the last text.
        positions: of each token, see `positions`.
        segments: 1, 2, ... for the texts of a row, 0 for padding.
        firsts: where the texts of a row begin; 0 where there is none.
    """

    tokens: Int[Array | np.ndarray, "B T"]
    positions: Int[Array | np.ndarray, "B T"]
    segments: Int[Array | np.ndarray, "B T"]
    firsts: Int[Array | np.ndarray, "B N"]


def positions(ids: Int[np.ndarray, " T"], config: EncoderConfig) -> Int[np.ndarray, " T"]:
    """Rows of the position embedding for the tokens of one text.

    A padding token inside a text is one of its tokens - hostile text may spell it - but RoBERTa does not count it.
    """
    if config.family == "bert":
        return np.arange(len(ids))
    counted = ids != config.padding_id
    return np.cumsum(counted) * counted + config.padding_id


def logits(params: Mapping[str, Array], rows: Rows, config: EncoderConfig) -> Float[Array, "B N M"]:
    """One logit for each label (M) of each text (N) of each row; behind a row's last text they mean nothing.

    Args:
        params: the parameters of `EncoderConfig.shapes`.
        rows: texts, which see themselves only.
        config: the shape.
    """
    rows = Rows(*map(jnp.asarray, rows))
    seen = rows.segments[:, :, None] == rows.segments[:, None, :]
    x = params["word"][rows.tokens] + params["position"][rows.positions] + params["type"]
    x = layer_norm(x, params["norm.weight"], params["norm.bias"], config.epsilon)
    layer = lambda i: {name: value[i] for name, value in params.items() if name.startswith("layers.")}  # noqa: E731
    x = jax.lax.fori_loop(0, config.layers - 1, lambda i, x: _layer(layer(i), x, x, seen, config), x)
    # The head reads a text's first token: of the last layer nothing else is needed.
    first = jnp.take_along_axis(x, rows.firsts[:, :, None], 1)
    seen = jnp.take_along_axis(seen, rows.firsts[:, :, None], 1)
    first = _layer(layer(config.layers - 1), first, x, seen, config)
    return _linear(params, "head.out", jnp.tanh(_linear(params, "head.dense", first)))


def _layer(
    layer: Mapping[str, Array], x: Float[Array, "B N D"], read: Float[Array, "B T D"], seen: Bool[Array, "B N T"],
    config: EncoderConfig,
) -> Float[Array, "B N D"]:  # fmt: skip
    """What becomes of some tokens, which see others."""
    heads = lambda name, y: _linear(layer, f"layers.{name}", y).reshape(*y.shape[:2], config.heads, -1)  # noqa: E731
    query, key, value = heads("query", x), heads("key", read), heads("value", read)
    scores = jnp.einsum("bthd,bshd->bhts", query, key, precision="highest") * query.shape[-1] ** -0.5
    weights = jax.nn.softmax(jnp.where(seen[:, None], scores, MASKED))
    mixed = jnp.einsum("bhts,bshd->bthd", weights, value, precision="highest").reshape(x.shape)
    x = x + _linear(layer, "layers.output", mixed)
    x = layer_norm(x, layer["layers.attention_norm.weight"], layer["layers.attention_norm.bias"], config.epsilon)
    inner = jax.nn.gelu(_linear(layer, "layers.up", x), approximate=False)
    x = x + _linear(layer, "layers.down", inner)
    return layer_norm(x, layer["layers.mlp_norm.weight"], layer["layers.mlp_norm.bias"], config.epsilon)


def _linear(params: Mapping[str, Any], name: str, x: Float[Array, "... N"]) -> Float[Array, "... M"]:
    return jnp.dot(x, params[f"{name}.kernel"], precision="highest") + params[f"{name}.bias"]
