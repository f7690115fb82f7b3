"""Trains an image tokenizer to give back the pictures that rows show, and says how well it does.

`theodolite base image-tokenizer train --config configs/image_tokenizer.yaml` makes the shipped one.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import UInt8

from base_model.chat import parts_of
from base_model.checkpoint import logical_axes
from base_model.image_tokenizer import ImageTokenizer, build, split, structure_of
from base_model.image_tokenizer_config import AutoencoderConfig, ImageTokenizerConfig
from base_model.images import load_image, resize
from training.checkpoint import content_digest
from training.dataset import Row, batch_indices, convert_rows
from training.errors import BadInput
from training.minimise import mesh_of, minimise
from training.step import Totals


@dataclass(frozen=True, kw_only=True)
class Pictures:
    """Distinct pictures of rows.

    Attributes:
        images: uint8 [N, S, S, 3].
        sources: the source of the first row that shows each.
    """

    images: UInt8[np.ndarray, "N S S 3"]
    sources: tuple[str, ...]

    @classmethod
    def read(cls, rows: Sequence[Row], size: int) -> "Pictures":
        """The pictures of rows with `messages`, resized.

        Raises:
            BadInput: with the place of a picture that cannot be read, or when there is none.
        """
        found: dict[Any, tuple[np.ndarray, str]] = {}

        def take(row: Row) -> None:
            for value in (part.get("image") for part in parts_of(row.values) if part.get("type") == "image"):
                place = (row.folder, value) if isinstance(value, str) else None
                if place not in found:
                    picture = resize(load_image(value, row.folder), size)
                    # What has no name is known by its pixels.
                    found.setdefault(place or picture.tobytes(), (picture, str(row.values.get("source", ""))))

        convert_rows(rows, take)
        if not found:
            raise BadInput("no row shows a picture")
        images, sources = zip(*found.values(), strict=True)
        return cls(images=np.stack(images), sources=tuple(sources))

    def balanced(self) -> np.ndarray:
        """Numbers of the pictures, those of smaller sources as often more as brings them near the largest."""
        counts = Counter(self.sources)
        times = [round(max(counts.values()) / counts[source]) for source in self.sources]
        return np.repeat(np.arange(len(self.sources)), times)


def relative_error(structure: nnx.GraphDef, params: Any, images: UInt8[Any, "B H W 3"]) -> Totals:
    """Sum over pictures of the mean squared difference to the picture given back, over the picture's own variance.

    So a small shape on a plain ground counts as much as a picture that is full of edges. Pixels lie in [-1, 1]; a
    hundredth is added to the variance, for pictures of one colour have none.
    """
    autoencoder = nnx.merge(structure, params)
    wanted = images.astype(jnp.float32) / 127.5 - 1
    error = jnp.square(autoencoder.decode(autoencoder.encode(images)) - wanted).mean((1, 2, 3))
    return {"loss": ((error / (wanted.var((1, 2)).mean(-1) + 0.01)).sum(), jnp.float32(len(images)))}


def train(
    config: ImageTokenizerConfig,
    autoencoder: AutoencoderConfig,
    pictures: Pictures,
    held_out: Pictures,
) -> ImageTokenizer:
    """Trains an image tokenizer from fresh parameters and writes it to output_dir/checkpoint.

    A run that was stopped goes on from its last saved state.
    """
    folder, order = Path(config.output_dir), pictures.balanced()
    module = build(autoencoder, seed=config.seed, dtype=config.matmul_dtype)
    structure, params = split(module)

    def batch_at(step: int, rows: int) -> np.ndarray:
        chosen = order[batch_indices(step, count=len(order), batch_size=rows, seed=config.seed)]
        images = pictures.images[chosen]
        mirrored = np.random.default_rng((config.seed, 1, step)).random(rows) < 0.5 * config.mirror
        return np.where(mirrored[:, None, None, None], images[:, :, ::-1], images)

    state = minimise(
        partial(relative_error, structure), params, logical_axes(module), batch_at=batch_at, examples=len(order),
        config=config, label="image tokenizer",
        identity=(repr(autoencoder), str(mesh_of(config).size), digest(pictures)),
        evaluate=lambda params: figures(ImageTokenizer(config=autoencoder, params=params), held_out)["all"],
    )  # fmt: skip
    if not (folder / "checkpoint").exists():
        ImageTokenizer(config=autoencoder, params=state.params).save(folder / "checkpoint")
    return ImageTokenizer.load(folder / "checkpoint")


def digest(pictures: Pictures) -> str:
    """SHA-256 over pictures and sources."""
    return content_digest({"images": pictures.images, "sources": np.array(pictures.sources)})


def figures(tokenizer: ImageTokenizer, pictures: Pictures) -> dict[str, dict[str, float]]:
    """What is known of an image tokenizer from pictures: of "all", and of each source.

    - psnr: mean over pictures of 10 log10(255^2 / mean squared error), in dB.
    - perplexity: e to the entropy of the codes' frequencies; as many codes, equally frequent, would be as varied.
    - used: share of the codes that occur at all.
    """
    quality, codes = assess(tokenizer, pictures.images)
    sources = np.array(pictures.sources)
    groups = {"all": np.ones(len(sources), bool)} | {name: sources == name for name in sorted(set(sources.tolist()))}
    return {
        name: {"psnr": float(quality[chosen].mean()), **usage(codes[chosen], tokenizer.config.codes)}
        for name, chosen in groups.items()
    }


def assess(
    tokenizer: ImageTokenizer, images: UInt8[np.ndarray, "N S S 3"], *, batch_size: int = 32
) -> tuple[np.ndarray, np.ndarray]:
    """PSNR of each picture, and its codes."""
    qualities, codes = [], []
    for first in range(0, len(images), batch_size):
        batch = images[first : first + batch_size]
        padded = np.concatenate([batch, np.zeros_like(images[:1]).repeat(batch_size - len(batch), 0)])
        given_back, ids = _again(structure_of(tokenizer.config), tokenizer.params, padded)
        error = np.square(np.asarray(given_back)[: len(batch)].astype(float) - batch).mean((1, 2, 3))
        qualities.append(10 * np.log10(255**2 / np.maximum(error, 1e-9)))
        codes.append(np.asarray(ids)[: len(batch)])
    return np.concatenate(qualities), np.concatenate(codes)


def usage(codes: np.ndarray, count: int) -> dict[str, float]:
    """Perplexity of codes and the share of them that occur."""
    frequency = np.bincount(codes.ravel(), minlength=count) / codes.size
    seen = frequency[frequency > 0]
    return {"perplexity": float(np.exp(-(seen * np.log(seen)).sum())), "used": len(seen) / count}


@partial(jax.jit, static_argnums=0)
def _again(structure: nnx.GraphDef, params: Any, images: Any) -> tuple[jax.Array, jax.Array]:
    autoencoder = nnx.merge(structure, params)
    ids = autoencoder.ids(images)
    return autoencoder.pictures(ids), ids
