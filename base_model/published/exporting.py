"""A model of ours as a published folder."""

import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import jax.numpy as jnp
import numpy as np

from base_model.checkpoint import LanguageModel
from base_model.config import ModelConfig
from base_model.drawing_tokenizer import CODES, DrawingTokenizer
from base_model.gemma import CONTROLS
from base_model.published.companions import write_companions
from base_model.published.description import describe
from base_model.published.model import written_params
from base_model.published.safetensors_files import Written, write_tensors
from training.checkpoint import write_json
from training.errors import BadInput

DTYPES = {"bfloat16": np.dtype(jnp.bfloat16), "float32": np.dtype(np.float32)}


def export_model(
    model: LanguageModel,
    out: Path,
    *,
    dtype: Literal["bfloat16", "float32"] = "bfloat16",
    shard_bytes: int = 5_000_000_000,
    towers: bool = True,
) -> None:
    """Writes a published folder, whole or not at all: config.json, safetensors, and what companions.py lists.

    The head of a reward model is score.weight and score.bias. It becomes a sequence classifier with one label where
    transformers has one, in the family of Gemma 3, and there the bias is not read, which moves all scores alike; in
    that of Gemma 4 its trunk is a model without a head.

    The config.json of a model that draws says in `image_codes` where its codes stand and whose they are.

    Args:
        model: what to write.
        out: folder that must not exist yet.
        dtype: of the tensors; published models are bfloat16.
        shard_bytes: largest file of tensors.
        towers: False leaves the encoders of pictures and sounds behind, for a model of text alone.

    Raises:
        BadInput: when the folder exists, or no published model has this model's shape.
    """
    if out.exists():
        raise BadInput(f"{out} exists already; nothing is ever overwritten")
    params = model.params["trunk"] if model.kind == "scalar" else model.params
    shape, params = as_published(model.config, params, towers=towers)
    known = model.tokenizer.controls
    description = describe(shape, {name: known[piece] for name, piece in CONTROLS.items() if piece in known})
    description |= {"architectures": [_architecture(description, model.kind)], "dtype": dtype}
    if model.kind == "scalar":
        description["num_labels"] = 1
    if isinstance(model.tokenizer, DrawingTokenizer):
        description[CODES] = model.tokenizer.described_codes
    temporary = out.with_name(out.name + ".tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    write_json(temporary / "config.json", description)
    write_companions(temporary, model.tokenizer, shape)
    tensors = [*written_params(shape, params, prefixes=_prefixes(description)), *_head(model)]
    write_tensors(temporary, tensors, dtype=DTYPES[dtype], shard_bytes=shard_bytes)
    temporary.rename(out)


def as_published(config: ModelConfig, params: Any, *, towers: bool = True) -> tuple[ModelConfig, Any]:
    """The same decoder with what Gemma 4 fixes folded into its parameters.

    Published Gemma 4 models have no scale on query-key products, which the norm of the queries takes on here, and a
    factor after every layer, which is 1 here. A model that is one of theirs already stays as it is.
    """
    params = {name: part for name, part in params.items() if towers or name not in ("vision", "audio")}
    if not towers:
        config = replace(config, vision=None, audio=None, image_attention="causal")
    if config.norm_offset or not config.value_norm or (config.layer_scalar and config.query_scale == 1):
        return config, params
    blocks = {}
    for number, block in params["blocks"].items():
        norm = {"weight": np.asarray(block["attention"]["query_norm"]["weight"]) * np.float32(config.query_scale)}
        folded = block | {"attention": block["attention"] | {"query_norm": norm}}
        blocks[number] = {"scalar": np.ones(1, np.float32)} | folded
    return replace(config, query_scale=1.0, layer_scalar=True), params | {"blocks": blocks}


def _architecture(description: dict[str, Any], kind: str) -> str:
    family = description["model_type"]
    names = {"gemma3": "Gemma3", "gemma4": "Gemma4", "gemma4_unified": "Gemma4Unified"}
    name = names[family.removesuffix("_text")]
    is_text = family.endswith("_text")
    if kind == "scalar":
        return f"{name}{'Text' if is_text else ''}{'ForSequenceClassification' if name == 'Gemma3' else 'Model'}"
    return f"{name}{'ForCausalLM' if is_text else 'ForConditionalGeneration'}"


def _prefixes(description: dict[str, Any]) -> tuple[str, str]:
    """What stands before the names of the text decoder's tensors, and of the encoders'."""
    if "text_config" not in description:
        return "model.", ""
    if description["model_type"] == "gemma3":
        return "language_model.model.", ""
    return "model.language_model.", "model."


def _head(model: LanguageModel) -> Iterator[Written]:
    if model.kind == "scalar":
        weight, bias = model.params["head"]["weight"], model.params["head"]["bias"]
        yield Written("score.weight", (1, weight.shape[0]), lambda: np.asarray(weight)[None])
        yield Written("score.bias", (1,), lambda: np.asarray(bias)[None])
