"""What a teacher makes of examples, on disk: its likeliest tokens at each place that is to be learned.

A folder of safetensors files, each with the same number of examples, and teacher.json, which says of what teacher, rows
and options they are. A file is written whole or not at all, so that an interrupted pass goes on with the next one.
"""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, Int
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from base_model.batch import Batch, pack
from base_model.checkpoint import LanguageModel, build, logical_axes, split
from base_model.distill_config import DistillConfig
from base_model.divergence import coarse_log_probs, likeliest
from base_model.interleave import Example, digest
from base_model.likelihood import over_logits
from base_model.media import count, room
from training.checkpoint import content_digest, write_json
from training.digest import json_digest
from training.errors import BadInput
from training.files import strict_json, write_whole
from training.minimise import mesh_of
from training.packing import first_fit
from training.progress import progress
from training.sharding import parameter_shardings, row_shards, shard_batch

FORMAT = 1
DESCRIPTION = "teacher.json"
EXAMPLES_A_FILE = 256
# Nearly the least number of float16, which stands for a probability of 0.
LEAST = -6e4


class Targets(NamedTuple):
    """A teacher's distributions over the next token.

    Attributes:
        ids: the likeliest tokens.
        log_probs: of each of them, and last of all other tokens together, at the options' temperature.
    """

    ids: Int[Any, "*axes K"]
    log_probs: Float[Any, "*axes K+1"]


def learned(example: Example) -> np.ndarray:
    """Places of the tokens that a model learns to produce; the first of an example has nothing before it."""
    places = np.flatnonzero(example.learn)
    return places[places > 0]


class TeacherCache:
    """Opens a whole cache for reading."""

    def __init__(self, folder: Path, examples: Sequence[Example]):
        """Opens and verifies every file.

        Args:
            folder: as write_cache left it.
            examples: those of the teacher, or others with the same tokens to be learned.

        Raises:
            BadInput: a file is missing, damaged or of another number of tokens.
        """
        self.identity = json_digest(_read_description(folder))
        self._bounds = np.array([0, *np.cumsum([len(learned(example)) for example in examples])])
        self._files = []
        for number, first in enumerate(range(0, len(examples), EXAMPLES_A_FILE)):
            last = min(first + EXAMPLES_A_FILE, len(examples))
            self._files.append(_open(folder / _name(number), int(self._bounds[last] - self._bounds[first])))

    def of(self, number: int) -> Targets:
        """Targets of an example's learned tokens, in their order."""
        file = number // EXAMPLES_A_FILE
        place = slice(*(self._bounds[number : number + 2] - self._bounds[file * EXAMPLES_A_FILE]).tolist())
        return Targets(*(self._files[file].get_slice(name)[place] for name in Targets._fields))


def write_cache(folder: Path, teacher: LanguageModel, examples: Sequence[Example], config: DistillConfig) -> None:
    """Lets the teacher read the examples, as far as that was not done before.

    Raises:
        BadInput: the folder holds what another teacher, other rows or other options gave, or top_k is too large.
    """
    if config.top_k > teacher.config.vocab_size:
        raise BadInput(f"top_k is {config.top_k}, and the teacher's vocabulary has {teacher.config.vocab_size} tokens")
    _claim(folder, _describe(teacher, examples, config))
    starts = range(0, len(examples), EXAMPLES_A_FILE)
    missing = [number for number in range(len(starts)) if not (folder / _name(number)).exists()]
    if not missing:
        return
    mesh = mesh_of(config)
    module = nnx.eval_shape(lambda: build(teacher.config, teacher.tokenizer, dtype=config.matmul_dtype, mesh=mesh))
    params = jax.device_put(teacher.params, parameter_shardings(mesh, logical_axes(module), teacher.params))
    read = partial(_read, split(module)[0], config.top_k, config.temperature, params)
    media = room([[example.media] for example in examples], slots=config.slots)
    rows = config.per_device_train_batch_size * row_shards(mesh)

    def targets(part: Sequence[Example]) -> Targets:
        found: list[Any] = [None] * len(part)
        sizes = [(len(example), *count([example.media])) for example in part]
        packed = first_fit(sizes, (config.max_length, *config.slots))
        for first in range(0, len(packed), rows):
            chosen = packed[first : first + rows]
            filled = [[part[i] for i in row] for row in chosen] + [[]] * (rows - len(chosen))
            batch = shard_batch(pack(filled, config.max_length, media), mesh)
            ids, log_probs = map(np.asarray, read(batch))
            for row, numbers in enumerate(chosen):
                start = 0
                for number in numbers:
                    places = start + learned(part[number]) - 1  # a token is foretold by what stands before it
                    found[number] = ids[row, places], log_probs[row, places]
                    start += len(part[number])
        return Targets(*map(np.concatenate, zip(*found, strict=True)))

    with progress("teacher", total=len(starts), done=len(starts) - len(missing)) as advance:
        for number in missing:
            arrays = targets(examples[starts[number] : starts[number] + EXAMPLES_A_FILE])._asdict()
            write_whole(folder / _name(number), save(arrays, metadata={"content_digest": content_digest(arrays)}))
            advance(1)


@partial(jax.jit, static_argnums=(0, 1, 2))
def _read(structure: nnx.GraphDef, top_k: int, temperature: float, params: Any, batch: Batch) -> Targets:
    """Targets for each token but the first of each row."""
    decoder = nnx.merge(structure, params)
    hidden, _ = decoder(batch.tokens, batch.positions, batch.segments, batch.media)

    def keep(logits: Float[Array, "B T V"], _: Any) -> Targets:
        ids = likeliest(logits, top_k=top_k)
        log_probs = coarse_log_probs(logits, ids, temperature=temperature)
        return Targets(ids, jnp.maximum(log_probs, LEAST).astype(jnp.float16))

    return over_logits(keep, decoder, hidden[:, :-1], batch.tokens[:, 1:])


def _describe(teacher: LanguageModel, examples: Sequence[Example], config: DistillConfig) -> dict[str, Any]:
    return {
        "format": FORMAT,
        "teacher": json_digest([teacher.config.to_json(), content_digest(teacher.params)]),
        "tokenizer": teacher.fingerprint,
        "rows": digest(examples),
        "temperature": config.temperature,
        "top_k": config.top_k,
        "matmul_dtype": config.matmul_dtype,
    }


def _claim(folder: Path, description: dict[str, Any]) -> None:
    """Makes the folder, or says how what it holds differs."""
    if not (folder / DESCRIPTION).exists():
        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / DESCRIPTION, description)
    found = _read_description(folder)
    if other := [name for name in description if description[name] != found.get(name)]:
        raise BadInput(
            f"{folder} is not what this teacher says of these rows with these options (other: {', '.join(other)}); "
            "delete that folder to have the teacher read again, or give another one with cache=DIR"
        )


def _read_description(folder: Path) -> dict[str, Any]:
    try:
        found = strict_json((folder / DESCRIPTION).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise BadInput(f"{folder / DESCRIPTION} cannot be read: {error}; delete that folder") from error
    if not isinstance(found, dict):
        raise BadInput(f"{folder / DESCRIPTION} is no JSON object; delete that folder")
    return found


def _open(path: Path, tokens: int) -> Any:
    try:
        file = safe_open(path, framework="numpy")
        arrays = {name: file.get_tensor(name) for name in Targets._fields}
    except (OSError, SafetensorError, ValueError) as error:
        raise BadInput(f"{path} is missing or damaged: {error}; delete it to have the teacher read again") from error
    if (file.metadata() or {}).get("content_digest") != content_digest(arrays) or len(arrays["ids"]) != tokens:
        raise BadInput(f"{path} was changed or damaged since it was written; delete it to have the teacher read again")
    return file


def _name(number: int) -> str:
    return f"{number:06}.safetensors"
