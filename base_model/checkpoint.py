"""A model as a folder: config.json, tokenizer.model, and parameters as orbax or safetensors."""

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax.sharding import Mesh
from jax.typing import DTypeLike

from base_model.chat import fingerprint
from base_model.config import ModelConfig, read_config
from base_model.config_json import model_config_of
from base_model.decoder import Decoder
from base_model.drawing_tokenizer import DrawingTokenizer
from base_model.gemma_tokenizer import GemmaTokenizer
from base_model.image_tokenizer import ImageTokenizer
from base_model.model_folder import read_arrays, read_description, verified, write_arrays, write_description
from base_model.tokenizer import Tokenizer
from training.checkpoint import content_digest, restore_params, save_params
from training.errors import BadInput
from training.sharding import placed

FORMAT = 1
# Of a number in the file of each kind of `save`.
BITS = {"safetensors": 16, "int8": 8, "int4": 4}
FIELDS = {"format", "kind", "model", "fingerprint", "statistics", "content_digest", "digest", "tokenizer"}
# Names of the axes of a reward model's head.
HEAD_AXES: dict[str, tuple[str | None, ...]] = {"weight": (None,), "bias": ()}
# The folder of a model that draws has that of its image tokenizer in it.
IMAGE_TOKENIZER = "image_tokenizer"


@dataclass(frozen=True, kw_only=True)
class LanguageModel:
    """A decoder's description, its tokenizer and its parameters.

    Attributes:
        config: shape of the decoder.
        tokenizer: text and control tokens.
        params: pure dict of arrays as `Decoder` has them; for a scalar model `{"trunk", "head"}`.
        kind: "decoder", or "scalar" for a reward model.
        statistics: numbers that belong to the model (a reward model's mean and standard deviation).
    """

    config: ModelConfig
    tokenizer: Tokenizer
    params: Any
    kind: str = "decoder"
    statistics: dict[str, float]

    @cached_property
    def fingerprint(self) -> str:
        """Digest of tokenizer and chat template."""
        return fingerprint(self.tokenizer)

    def with_params(self, params: Any) -> "LanguageModel":
        """The same model with other parameters."""
        return replace(self, params=params)


def build(
    config: ModelConfig,
    tokenizer: Tokenizer,
    *,
    seed: int = 0,
    dtype: DTypeLike = jnp.float32,
    remat: bool = False,
    mesh: Mesh | None = None,
) -> Decoder:
    """A decoder with fresh parameters; the options are those of Decoder."""
    if tokenizer.vocab_size != config.vocab_size:
        raise BadInput(f"the tokenizer has {tokenizer.vocab_size} ids and the config says {config.vocab_size}")
    rngs = nnx.Rngs(seed)
    return Decoder(config, soft_tokens=tokenizer.soft_tokens, dtype=dtype, remat=remat, mesh=mesh, rngs=rngs)


def split(module: nnx.Module) -> tuple[nnx.GraphDef, Any]:
    """A module as its static structure and a pure dict of parameters; `nnx.merge` puts them together again.

    Jitted functions close over the structure and take the dict: traversing the module at every call would cost more
    than a small model's step.
    """
    structure, state = nnx.split(module, nnx.Param)
    return structure, nnx.to_pure_dict(state)


def structure_of(
    config: ModelConfig,
    tokenizer: Tokenizer,
    *,
    dtype: DTypeLike = jnp.float32,
    remat: bool = False,
    mesh: Mesh | None = None,
) -> nnx.GraphDef:
    """The static structure of a decoder, without allocating it."""
    return split(nnx.eval_shape(lambda: build(config, tokenizer, dtype=dtype, remat=remat, mesh=mesh)))[0]


def logical_axes(module: nnx.Module) -> Any:
    """Tree of the logical axis names of a (possibly abstract) module's parameters."""
    state = nnx.state(module, nnx.Param)
    return jax.tree.map(
        lambda variable: tuple(variable.get_metadata()["logical_axes"]),
        nnx.to_pure_dict(state, extract_fn=lambda variable: variable),
        is_leaf=lambda x: isinstance(x, nnx.Variable),
    )


def save(model: LanguageModel, folder: Path, *, weights: str = "orbax") -> None:
    """Writes a model to a new folder, whole or not at all.

    Args:
        model: what to write.
        folder: must not exist yet.
        weights: "orbax" in float32 (any mesh, every stage), "safetensors" in bfloat16 (one small file to ship), or
            "int8" and "int4" (smaller still, and rounded: base_model/quantized.py).
    """
    if folder.exists():
        raise BadInput(f"{folder} exists already; a checkpoint is never overwritten")
    temporary = folder.with_name(folder.name + ".tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    params = model.params
    if weights in BITS:
        params = write_arrays(temporary / "model.safetensors", params, bits=BITS[weights])
    else:
        save_params(temporary / "params", params)
    description = {
        "format": FORMAT,
        "kind": model.kind,
        "model": json.loads(model.config.to_json()),
        "fingerprint": model.fingerprint,
        "statistics": model.statistics,
        "content_digest": content_digest(params),
    }
    if settings := model.tokenizer.settings:
        description["tokenizer"] = settings
    write_description(temporary, description)
    (temporary / model.tokenizer.file_name).write_bytes(model.tokenizer.model)
    if isinstance(model.tokenizer, DrawingTokenizer):
        model.tokenizer.images.save(temporary / IMAGE_TOKENIZER)
    temporary.rename(folder)


def kind_of(folder: Path) -> str:
    """What to ask `load` for; it refuses what is neither a language model nor a reward model."""
    return "scalar" if read_config(folder / "config.json").get("kind") == "scalar" else "decoder"


def load(
    folder: Path | str, *, kind: str = "decoder", attested: str | None = None, mesh: Mesh | None = None
) -> LanguageModel:
    """Reads a model from its folder and verifies that its parameters are those that were written.

    Args:
        folder: where it lies.
        kind: "decoder", or "scalar" for a reward model.
        attested: the digest that config.json must have, if given; all else that is read is compared with that file.
        mesh: over whose devices the parameters are split as they are read, so that none ever holds all of them; by
            default they lie on one device.

    Raises:
        BadInput: when a file is missing, damaged or changed, a number is not finite, the kind is another one, or the
            mesh does not divide a width.
        Refused: when config.json is not the attested one.
    """
    folder = Path(folder)
    description = read_description(folder, FORMAT, FIELDS, digest=attested)
    if description.get("kind") != kind:
        wanted = {"decoder": "a language model", "scalar": "a reward model"}[kind]
        raise BadInput(f"{folder} holds a model of kind {description.get('kind')!r}, and {wanted} is needed here")
    config = model_config_of(description.get("model", {}))
    tokenizer = load_tokenizer(folder, config, description.get("tokenizer", {}))
    shape = abstract_params(config, tokenizer, kind, mesh)
    if (folder / "model.safetensors").exists():
        params = read_arrays(folder / "model.safetensors", shape)
    else:
        params = restore_params(folder / "params", shape)
    params = verified(params, description, folder, shape)
    model = LanguageModel(
        config=config, tokenizer=tokenizer, params=params, kind=kind, statistics=description.get("statistics", {})
    )
    if model.fingerprint != description.get("fingerprint"):
        raise BadInput(f"the tokenizer or chat template of {folder} is not the one its parameters were trained with")
    return model


def load_tokenizer(folder: Path, config: ModelConfig, settings: Mapping[str, Any]) -> Tokenizer:
    """The tokenizer of a checkpoint: one of our own, or that of a published model, with codes where the model draws."""
    images = ImageTokenizer.load(folder / IMAGE_TOKENIZER) if (folder / IMAGE_TOKENIZER).exists() else None
    if (path := folder / GemmaTokenizer.file_name).exists():
        codes = 0 if images is None else images.config.codes
        text: Tokenizer = GemmaTokenizer.read(path, vocab_size=config.vocab_size - codes, settings=settings)
    else:
        text = Tokenizer.load(folder / Tokenizer.file_name)
    return text if images is None else DrawingTokenizer(text, images)


def abstract_params(config: ModelConfig, tokenizer: Tokenizer, kind: str, mesh: Mesh | None = None) -> Any:
    """Shapes and dtypes of a model's parameters as `save` wrote them, and their shardings on a mesh of many devices."""
    module = nnx.eval_shape(lambda: build(config, tokenizer))
    params, axes = split(module)[1], logical_axes(module)
    if kind == "scalar":
        head = {"weight": jax.ShapeDtypeStruct((config.embed_dim,), jnp.float32),
                "bias": jax.ShapeDtypeStruct((), jnp.float32)}  # fmt: skip
        params, axes = {"trunk": params, "head": head}, {"trunk": axes, "head": HEAD_AXES}
    return params if mesh is None or mesh.size == 1 else placed(mesh, axes, params)
