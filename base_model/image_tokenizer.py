"""Pictures to codes and back: an autoencoder with its parameters, as a folder."""

import dataclasses
import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache, partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Int, UInt8

from base_model.autoencoder import Autoencoder
from base_model.image_tokenizer_config import AutoencoderConfig
from base_model.images import resize
from base_model.model_folder import read_arrays, read_description, verified, write_arrays, write_description
from training.checkpoint import content_digest
from training.digest import json_digest
from training.errors import BadInput

FORMAT, KIND = 1, "image-tokenizer"
FIELDS = {"format", "kind", "model", "content_digest", "digest"}
FILES = ("config.json", "model.safetensors")


@dataclass(frozen=True, kw_only=True, eq=False)
class ImageTokenizer:
    """What turns a picture into a fixed number of codes, and codes into a picture.

    Attributes:
        config: sizes.
        params: pure dict of arrays as Autoencoder has them.
    """

    config: AutoencoderConfig
    params: Any

    @cached_property
    def digest(self) -> str:
        """SHA-256 over sizes and parameters as they are stored: codes mean something to this tokenizer alone."""
        return json_digest(self._description(jax.tree.map(lambda x: np.asarray(x).astype(jnp.bfloat16), self.params)))

    def encode(self, picture: UInt8[np.ndarray, "H W 3"]) -> list[int]:
        """The codes of a picture, row by row of its cells."""
        # One at a time: sums of another batch size are rounded otherwise, and a number may fall to another level.
        squashed = resize(picture, self.config.image_size)[None]
        return np.asarray(_ids(structure_of(self.config), self.params, squashed))[0].tolist()

    def decode(self, codes: Sequence[int]) -> UInt8[np.ndarray, "S S 3"]:
        """The picture that codes stand for.

        Raises:
            BadInput: when there are more or fewer codes than a picture has.
        """
        if len(codes) != self.config.length:
            raise BadInput(f"a picture has {self.config.length} codes, not {len(codes)}")
        if not all(0 <= code < self.config.codes for code in codes):
            raise BadInput(f"codes of this image tokenizer lie between 0 and {self.config.codes - 1}")
        ids = np.array([codes], np.int32)
        return np.asarray(_pictures(structure_of(self.config), self.params, ids))[0]

    def save(self, folder: Path) -> None:
        """Writes config.json and model.safetensors (bfloat16) to a new folder, whole or not at all."""
        if folder.exists():
            raise BadInput(f"{folder} exists already; an image tokenizer is never overwritten")
        temporary = folder.with_name(folder.name + ".tmp")
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        write_description(temporary, self._description(write_arrays(temporary / FILES[1], self.params)))
        temporary.rename(folder)

    @classmethod
    def load(cls, folder: Path | str) -> "ImageTokenizer":
        """Reads an image tokenizer and verifies that its parameters are those that were written.

        Raises:
            BadInput: when a file is missing, damaged or changed, or the folder holds something else.
        """
        folder = Path(folder)
        description = read_description(folder, FORMAT, FIELDS)
        if (kind := description.get("kind")) != KIND:
            raise BadInput(f"{folder} holds a model of kind {kind!r:.40}, and an image tokenizer is needed here")
        try:
            listed: dict[str, Any] = description.get("model", {})
            sizes: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in listed.items()}
            config = AutoencoderConfig(**sizes)
        except TypeError as error:
            raise BadInput(f"{folder}/config.json describes no image tokenizer: {error}") from error
        shape = split(nnx.eval_shape(lambda: build(config)))[1]
        return cls(config=config, params=verified(read_arrays(folder / FILES[1], shape), description, folder, shape))

    def _description(self, rounded: Any) -> dict[str, Any]:
        model = json.loads(json.dumps(dataclasses.asdict(self.config)))
        return {"format": FORMAT, "kind": KIND, "model": model, "content_digest": content_digest(rounded)}


def build(config: AutoencoderConfig, *, seed: int = 0, dtype: Any = jnp.float32) -> Autoencoder:
    """An autoencoder with fresh parameters."""
    return Autoencoder(config, dtype=dtype, rngs=nnx.Rngs(seed))


def split(module: nnx.Module) -> tuple[nnx.GraphDef, Any]:
    """A module as its static structure and a pure dict of parameters."""
    structure, state = nnx.split(module, nnx.Param)
    return structure, nnx.to_pure_dict(state)


@lru_cache(maxsize=8)
def structure_of(config: AutoencoderConfig) -> nnx.GraphDef:
    """The static structure of an autoencoder in float32, without allocating it."""
    return split(nnx.eval_shape(lambda: build(config)))[0]


@partial(jax.jit, static_argnums=0)
def _ids(structure: nnx.GraphDef, params: Any, images: Any) -> Int[jax.Array, "N S"]:
    return nnx.merge(structure, params).ids(images)


@partial(jax.jit, static_argnums=0)
def _pictures(structure: nnx.GraphDef, params: Any, ids: Any) -> UInt8[jax.Array, "N H W 3"]:
    return nnx.merge(structure, params).pictures(ids)
