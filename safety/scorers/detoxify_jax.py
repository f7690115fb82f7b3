"""detoxify's classifiers in JAX: one compiled program for each batch shape, on the same devices as the rollouts.

Speed is a matter of padding. Texts are sorted by their tokens and share a batch with others of about their length,
where the package fills every text up to the longest beside it. Equal texts are scored once.
"""

import json
import os
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from safetensors import SafetensorError
from safetensors.numpy import load_file
from tokenizers import Tokenizer

from safety.scorer import ScorerIdentity
from safety.scorers.convert import FORMAT, KIND, require_shapes
from safety.scorers.encoder import EncoderConfig, logical_axes, logits
from training.digest import folder_digest
from training.errors import BadInput
from training.sharding import make_mesh, named_sharding, replicated, row_shards, shard_batch

# Widths of batches: no text is filled up by more than a third, and few programs are compiled.
WIDTHS = (8, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512)
# Tokens in one batch, padding included.
TOKENS = 2048


class Shape(NamedTuple):
    """A batch: which texts are in it, and its rows and width."""

    texts: tuple[int, ...]
    rows: int
    width: int


def plan(lengths: Sequence[int], *, shards: int = 1, tokens: int = TOKENS, longest: int = 512) -> list[Shape]:
    """Batches of texts of similar length, the longest first.

    The last batch of a width has a power of two of rows, so that eight sentences do not pay for a hundred.

    Args:
        lengths: tokens of each text.
        shards: rows are a multiple of this.
        tokens: rows x width is at most about this.
        longest: the widest batch.
    """
    order = sorted(range(len(lengths)), key=lambda text: -lengths[text])
    batches, start = [], 0
    while start < len(order):
        width = min(longest, next((width for width in WIDTHS if width >= lengths[order[start]]), longest))
        most = max(shards, tokens // width // shards * shards)
        chosen = order[start : start + most]
        needed = -(-len(chosen) // shards)
        batches.append(Shape(tuple(chosen), min(most, shards * (1 << (needed - 1).bit_length())), width))
        start += len(chosen)
    return batches


class DetoxifyJaxScorer:
    """A converted classifier; its labels include toxicity, severe_toxicity, threat and identity_attack."""

    def __init__(self, folder: str | os.PathLike, *, mesh: Mesh | None = None):
        """Load a folder that `theodolite safety convert-detoxify` wrote.

        Args:
            folder: the folder.
            mesh: devices to run on; all of them by default, each with rows of its own.

        Raises:
            BadInput: a file is missing, damaged, or of another classifier than the config says.
        """
        path = Path(folder)
        if not path.is_dir():
            raise BadInput(f"{path} is no folder of a converted classifier; `safety convert-detoxify` makes one")
        digest = folder_digest(path)
        self._config = read_config(path)
        try:
            params = load_file(path / "model.safetensors")
        except (OSError, SafetensorError, ValueError) as error:
            raise BadInput(f"the classifier's weights in {path} cannot be read: {error}") from error
        require_shapes(params, self._config)
        try:
            self._tokenizer = Tokenizer.from_file(str(path / "tokenizer.json"))
        except Exception as error:  # the library raises nothing more special
            raise BadInput(f"the tokenizer in {path} cannot be read: {error}") from error
        if self._tokenizer.get_vocab_size() > self._config.vocab_size:
            found = self._tokenizer.get_vocab_size()
            raise BadInput(f"the tokenizer in {path} has {found} tokens, its classifier {self._config.vocab_size}")
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(self._config.max_tokens)
        self._mesh = mesh or make_mesh(data=-1, fsdp=1)
        self._params = {
            name: jax.device_put(value, named_sharding(self._mesh, logical_axes(name)))
            for name, value in params.items()
        }
        self._probabilities = jax.jit(
            partial(_probabilities, config=self._config), out_shardings=replicated(self._mesh)
        )
        self.labels = self._config.labels
        self.identity = ScorerIdentity(f"detoxify-{path.name}", f"in JAX, format {FORMAT}", digest)

    def score(self, texts: Sequence[str]) -> dict[str, np.ndarray]:
        """Return one float32[N] for each label; see `Scorer.score`."""
        distinct = list(dict.fromkeys(texts))
        ids = [encoding.ids for encoding in self._tokenizer.encode_batch(distinct)]
        found = np.zeros((len(distinct), len(self.labels)), np.float32)
        longest = self._config.max_tokens
        waiting = []
        for batch in plan([len(one) for one in ids], shards=row_shards(self._mesh), longest=longest):
            tokens = np.full((batch.rows, batch.width), self._config.padding_id, np.int32)
            lengths = np.ones(batch.rows, np.int32)
            for row, text in enumerate(batch.texts):
                tokens[row, : len(ids[text])], lengths[row] = ids[text], len(ids[text])
            tokens, lengths = shard_batch((tokens, lengths), self._mesh)
            waiting.append((batch.texts, self._probabilities(self._params, tokens, lengths)))
        for rows, values in waiting:  # fetched last, so that the devices never wait for the host
            found[list(rows)] = np.asarray(values)[: len(rows)]
        place = {text: row for row, text in enumerate(distinct)}
        rows = [place[text] for text in texts]
        return {label: found[rows, column] for column, label in enumerate(self.labels)}


def _probabilities(params: dict, tokens: jax.Array, lengths: jax.Array, *, config: EncoderConfig) -> jax.Array:
    return jax.nn.sigmoid(logits(params, tokens, lengths, config)).astype(jnp.float32)


def read_config(folder: Path) -> EncoderConfig:
    """The shape of a converted classifier.

    Raises:
        BadInput: config.json is missing, or is none of a converted classifier.
    """
    path = folder / "config.json"
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if (content["kind"], content["format"]) != (KIND, FORMAT):
            raise BadInput(f"{path} is no converted classifier of format {FORMAT}")
        encoder = dict(content["encoder"])
        return EncoderConfig(**{**encoder, "labels": tuple(map(str, encoder["labels"]))})
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise BadInput(f"{path} is no config of a converted classifier: {type(error).__name__}: {error}") from error
