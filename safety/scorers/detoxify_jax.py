"""detoxify's classifiers in JAX: one compiled program for each batch shape, on the same devices as the rollouts.

Speed is a matter of padding. The package fills every text up to the longest beside it; here a row holds several texts,
which do not see each other, and is full but for a few tokens. Equal texts are scored once.
"""

import json
import os
from bisect import bisect_right
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
from safety.scorers.encoder import EncoderConfig, Rows, logical_axes, logits, positions
from training.digest import folder_digest
from training.errors import BadInput
from training.sharding import make_mesh, named_sharding, replicated, row_shards, shard_batch

# Widths of rows: the narrower, the less attention computes in vain; the fewer of them, the fewer programs are compiled.
WIDTHS = (64, 128, 256, 512)
# Tokens in one batch, padding included.
TOKENS = 2048
# A row holds at most this share of its width in texts: they are 4 tokens long on average, or the row is not full.
PER_TEXT = 4


class Shape(NamedTuple):
    """A batch: which texts each of its rows holds, and how many rows it is filled up to, and their width."""

    texts: tuple[tuple[int, ...], ...]
    rows: int
    width: int


def plan(lengths: Sequence[int], *, shards: int = 1, tokens: int = TOKENS, longest: int = 512) -> list[Shape]:
    """Batches of rows, the widest first.

    A row begins with the longest text that is left, which says how wide it is, and goes on with the longest that still
    fit. The last batch of a width has a power of two of rows, so that eight sentences do not pay for a hundred.

    Args:
        lengths: tokens of each text.
        shards: rows are a multiple of this.
        tokens: rows x width is at most about this.
        longest: the widest row.
    """
    left = sorted(range(len(lengths)), key=lambda text: lengths[text])
    sizes = [lengths[text] for text in left]
    rows: dict[int, list[tuple[int, ...]]] = {}
    while left:
        width = min(longest, next((width for width in WIDTHS if width >= sizes[-1]), longest))
        row, room = [], width
        while len(row) < max(1, width // PER_TEXT) and (place := bisect_right(sizes, room)):
            room -= sizes.pop(place - 1)
            row.append(left.pop(place - 1))
        rows.setdefault(width, []).append(tuple(row))
    batches = []
    for width, of_width in rows.items():
        most = max(shards, tokens // width // shards * shards)
        for start in range(0, len(of_width), most):
            chosen = tuple(of_width[start : start + most])
            needed = -(-len(chosen) // shards)
            batches.append(Shape(chosen, min(most, shards * (1 << (needed - 1).bit_length())), width))
    return batches


def lay_out(batch: Shape, ids: Sequence[Sequence[int]], config: EncoderConfig) -> Rows:
    """The rows of a batch as arrays.

    Args:
        batch: of a plan.
        ids: tokens of all texts.
        config: of the classifier.
    """
    shape = (batch.rows, batch.width)
    tokens, segments = np.full(shape, config.padding_id, np.int32), np.zeros(shape, np.int32)
    places, firsts = np.zeros(shape, np.int32), np.zeros((batch.rows, max(1, batch.width // PER_TEXT)), np.int32)
    for row, texts in enumerate(batch.texts):
        start = 0
        for number, text in enumerate(texts):
            part = slice(start, start + len(ids[text]))
            tokens[row, part], segments[row, part] = ids[text], number + 1
            places[row, part], firsts[row, number] = positions(np.array(ids[text]), config), start
            start = part.stop
    return Rows(tokens, places, segments, firsts)


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
            rows = shard_batch(lay_out(batch, ids, self._config), self._mesh)
            waiting.append((batch.texts, self._probabilities(self._params, rows)))
        for packed, values in waiting:  # fetched last, so that the devices never wait for the host
            for row, of_row in zip(packed, np.asarray(values), strict=False):  # the last rows may be empty
                found[list(row)] = of_row[: len(row)]
        place = {text: row for row, text in enumerate(distinct)}
        rows = [place[text] for text in texts]
        return {label: found[rows, column] for column, label in enumerate(self.labels)}


def _probabilities(params: dict, rows: Rows, *, config: EncoderConfig) -> jax.Array:
    return jax.nn.sigmoid(logits(params, rows, config)).astype(jnp.float32)


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
