"""The encoder behind detoxify's classifiers in float32: BERT (Devlin et al. 2019) and RoBERTa (Liu et al. 2019).

Post-norm layers, learned positions, exact GELU, and a head on the first token: logits = out(tanh(dense(h[0]))). The two
families differ in how positions are counted. Matrix products are asked for in full precision: a score that depends on
the hardware's shortcuts would not be pinned by its weights.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import jax
import jax.numpy as jnp
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


def logits(
    params: Mapping[str, Array], tokens: Int[Array, "B T"], lengths: Int[Array, " B"], config: EncoderConfig
) -> Float[Array, "B N"]:
    """One logit for each label.

    Args:
        params: the parameters of `EncoderConfig.shapes`.
        tokens: rows, filled up with the padding token behind their text.
        lengths: tokens of each row that are text. A padding token inside a text is one of its tokens: hostile text may
            spell it.
        config: the shape.
    """
    seen = jnp.arange(tokens.shape[1]) < lengths[:, None]
    if config.family == "bert":
        positions = jnp.broadcast_to(jnp.arange(tokens.shape[1]), tokens.shape)
    else:
        counted = tokens != config.padding_id
        positions = jnp.cumsum(counted, 1) * counted + config.padding_id
    x = params["word"][tokens] + params["position"][positions] + params["type"]
    x = layer_norm(x, params["norm.weight"], params["norm.bias"], config.epsilon)
    stacked = {name: value for name, value in params.items() if name.startswith("layers.")}
    x, _ = jax.lax.scan(lambda x, layer: (_layer(layer, x, seen, config), None), x, stacked)
    first = jnp.tanh(_linear(params, "head.dense", x[:, 0]))
    return _linear(params, "head.out", first)


def _layer(
    layer: Mapping[str, Array], x: Float[Array, "B T D"], seen: Bool[Array, "B T"], config: EncoderConfig
) -> Float[Array, "B T D"]:
    heads = lambda y: y.reshape(*y.shape[:2], config.heads, -1)  # noqa: E731
    query, key, value = (heads(_linear(layer, f"layers.{name}", x)) for name in ("query", "key", "value"))
    scores = jnp.einsum("bthd,bshd->bhts", query, key, precision="highest") * query.shape[-1] ** -0.5
    weights = jax.nn.softmax(jnp.where(seen[:, None, None, :], scores, MASKED))
    mixed = jnp.einsum("bhts,bshd->bthd", weights, value, precision="highest").reshape(x.shape)
    x = x + _linear(layer, "layers.output", mixed)
    x = layer_norm(x, layer["layers.attention_norm.weight"], layer["layers.attention_norm.bias"], config.epsilon)
    inner = jax.nn.gelu(_linear(layer, "layers.up", x), approximate=False)
    x = x + _linear(layer, "layers.down", inner)
    return layer_norm(x, layer["layers.mlp_norm.weight"], layer["layers.mlp_norm.bias"], config.epsilon)


def _linear(params: Mapping[str, Any], name: str, x: Float[Array, "... N"]) -> Float[Array, "... M"]:
    return jnp.dot(x, params[f"{name}.kernel"], precision="highest") + params[f"{name}.bias"]
