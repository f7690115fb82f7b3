"""How far a model is from what another implementation computed for it: golden.npz of a published folder."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from flax import nnx

from base_model.config import ModelConfig, read_config
from base_model.gemma import control_tokens, model_config, soft_tokens
from base_model.media import Media, stack
from base_model.published.golden_media import ARGUMENTS, media_of, tower_media
from base_model.published.golden_passes import Rows, chosen, look_inside, loss_and_gradients, read_in_parts
from base_model.published.golden_towers import as_stored
from base_model.published.model import abstract_model, dotted, model_tensors, read_params
from base_model.published.table import canonical
from training.errors import BadInput

# A label that is not counted.
IGNORED = -100

# Arguments with a figure for each token.
BATCH = ("input_ids", "attention_mask", "position_ids", "labels")

# Quantities with a figure for each token, padding among them.
BY_TOKEN = ("logits", "prefill_logits", "hidden/")

# Arguments that say no more than the ids do.
REDUNDANT = ("token_type_ids", "mm_token_type_ids", "num_frames_per_video")

# What is stored of the encoders alone stands below this name.
TOWER = "tower"


class Difference(NamedTuple):
    """The largest absolute difference in a quantity of a case, for tokens how many differ; None if not compared."""

    case: str
    quantity: str
    largest: float | None


class Case(NamedTuple):
    """One case: what is stored of it, and where its rows stand in the batch of all cases."""

    name: str
    stored: dict[str, np.ndarray]
    rows: slice
    width: int

    @property
    def inputs(self) -> dict[str, np.ndarray]:
        """Arguments of the forward pass."""
        return {name.removeprefix("in/"): array for name, array in self.stored.items() if name.startswith("in/")}

    def own(self, array: Any) -> np.ndarray:
        """The case's part of an array that has the rows of all cases."""
        return np.asarray(array)[self.rows, : self.width]


class Golden(NamedTuple):
    """What golden.npz holds: cases, what the encoders alone make of pictures and sounds, and names of neither."""

    cases: list[Case]
    towers: dict[str, np.ndarray]
    others: list[str]


def differences(folder: Path) -> Iterator[Difference]:
    """Compares the model of a published folder with the figures in its golden.npz, case by case.

    All cases are rows of one batch, so that a program is compiled once; the last row has no tokens and the media that
    the encoders alone are compared in. What is stored and cannot be compared is said, too.

    Raises:
        BadInput: when the folder is none such, or its files do not fit together.
    """
    description = read_config(folder / "config.json")
    config, places = model_config(description), soft_tokens(description)
    cases, towers, others = read_golden(folder / "golden.npz")
    structure, like = abstract_model(config, places)
    params = read_params(folder, config, like)
    rows = Rows(*(joined(cases, arrays) for arrays in zip(*(rows_of(case.inputs) for case in cases), strict=True)))
    alone = tower_media(towers, [case.inputs for case in cases], config)
    media = stack([*(row for case in cases for row in media_of(case.inputs, config, places)), [alone]])
    # Products of float32 as the published model computes them, on any hardware.
    with jax.default_matmul_precision("highest"):
        everywhere, encoded = look_inside(structure, params, rows, media)
        for case in cases:
            found: dict[str, Any] = {name: case.own(array) for name, array in everywhere.items()}
            found |= _soft_tokens(found["hidden/00"], case.own(rows.tokens), places)
            if "new_tokens" in case.stored:
                own = Rows(*(case.own(array) for array in rows))
                later = case.stored["new_tokens"]
                prefill, steps = read_in_parts(structure, params, found["hidden/00"], own, later)
                picked = chosen(steps, control_tokens(description))
                found |= {"prefill_logits": prefill, "step_logits": steps, "new_tokens": picked}
            if {"loss", "in/labels"} <= case.stored.keys():
                labels = np.full_like(rows.tokens, IGNORED)
                labels[case.rows, : case.width] = case.stored["in/labels"]
                again, _ = abstract_model(config, places, remat=True)
                found |= _loss(again, params, rows, media, labels, config)
            yield from compare(case, found, case.own(rows.segments) > 0)
    yield from compare_towers(towers, as_stored(jax.tree.map(lambda leaf: leaf[-1], encoded), towers))
    for name in others:
        case, _, quantity = name.rpartition("/")
        yield Difference(case, quantity, None)


def joined(cases: Sequence[Case], arrays: Sequence[np.ndarray]) -> np.ndarray:
    """The rows of all cases, the narrower ones filled up with zeros, which is padding, and a row of padding."""
    width = max(case.width for case in cases)
    rows = [np.pad(array, ((0, 0), (0, width - array.shape[1]))) for array in arrays]
    return np.concatenate([*rows, np.zeros((1, width), rows[0].dtype)])


def read_golden(path: Path) -> Golden:
    """The cases of golden.npz, a case being what has input ids, and what else it holds.

    Raises:
        BadInput: when the file is missing or damaged, or holds no case.
    """
    try:
        # Opened here, for NumPy leaves a file that is no archive open.
        with path.open("rb") as content, np.load(content, allow_pickle=False) as file:
            names = [name.partition("/") for name in file.files]
            found: dict[str, dict[str, np.ndarray]] = {case: {} for case, _, name in names if name == "in/input_ids"}
            others, towers = [], found.setdefault(TOWER, {})
            for case, slash, name in names:
                if case in found and slash:
                    found[case][name] = file[f"{case}/{name}"]
                else:
                    others.append(case + slash + name)
            del found[TOWER]
    except FileNotFoundError as error:
        raise BadInput(f"{path} is missing: there is nothing to compare with") from error
    except Exception as error:  # NumPy and zipfile raise what they like for damaged bytes
        raise BadInput(f"{path} cannot be read: {error}") from error
    cases: list[Case] = []
    for name, stored in found.items():
        first = cases[-1].rows.stop if cases else 0
        shapes = {stored[f"in/{what}"].shape for what in BATCH if f"in/{what}" in stored}
        if len(shapes) != 1 or len(shape := shapes.pop()) != 2:
            raise BadInput(f"{path}: {', '.join(BATCH)} of {name} should be of one shape, rows x tokens")
        count, width = shape
        cases.append(Case(name, stored, slice(first, first + count), width))
    if not cases:
        raise BadInput(f"{path} holds no case: an array named <case>/in/input_ids is wanted")
    return Golden(cases, towers, others)


def rows_of(inputs: Mapping[str, np.ndarray]) -> Rows:
    """The rows of a case: without a mask all tokens count, without positions they count up from the first that does."""
    tokens = inputs["input_ids"]
    segments = np.asarray(inputs.get("attention_mask", np.ones_like(tokens)), np.int32)
    positions = inputs.get("position_ids", np.maximum(np.cumsum(segments, 1) - 1, 0))
    return Rows(tokens, np.asarray(positions, np.int32), segments)


def compare(case: Case, found: Mapping[str, Any], mask: np.ndarray) -> Iterator[Difference]:
    """What was found of a case against what is stored of it, at tokens that count."""
    for name, wanted in case.stored.items():
        if name.startswith("in/") and name.removeprefix("in/") in (*BATCH, *ARGUMENTS, *REDUNDANT):
            continue
        if name.startswith("gradnorm/"):
            name = f"gradnorm/{canonical(name.removeprefix('gradnorm/'))}"
        if name not in found:
            yield Difference(case.name, name, None)
            continue
        value = np.asarray(found[name])
        if name == "new_tokens":
            yield Difference(case.name, name, float((value != wanted).sum()))
        elif name.endswith("_hidden_states"):
            yield Difference(case.name, name, largest(value, wanted.reshape(-1, wanted.shape[-1])))
        else:
            yield Difference(case.name, name, largest(value, wanted, mask if name.startswith(BY_TOKEN) else None))


def compare_towers(
    stored: Mapping[str, np.ndarray], found: Mapping[str, tuple[np.ndarray, np.ndarray | None]]
) -> Iterator[Difference]:
    """What was found of the encoders alone against what is stored of them, where it counts."""
    for name, wanted in stored.items():
        if name in found:
            value, mask = found[name]
            yield Difference(TOWER, name, largest(value, wanted, mask))
        elif name.removeprefix("in/") not in ARGUMENTS:
            yield Difference(TOWER, name, None)


def largest(found: np.ndarray, wanted: np.ndarray, mask: np.ndarray | None = None) -> float:
    """The largest absolute difference; infinite where it is not a number, so that nothing hides behind NaN."""
    if found.shape != wanted.shape:
        return float("inf")
    difference = np.abs(found.astype(np.float64) - wanted)
    return float(np.nan_to_num(difference if mask is None else difference[mask], nan=np.inf).max(initial=0))


def _soft_tokens(embeddings: np.ndarray, tokens: np.ndarray, places: Media) -> dict[str, np.ndarray]:
    """The soft tokens of pictures and of sounds, as they stand in their places, row after row."""
    sorts = {"image_hidden_states": places.images[:1], "audio_hidden_states": places.sounds}
    return {name: embeddings[np.isin(tokens, ids)] for name, ids in sorts.items()}


def _loss(
    structure: nnx.GraphDef, params: Any, rows: Rows, media: Media, labels: np.ndarray, config: ModelConfig
) -> dict[str, Any]:
    """The loss, and the norms of its gradients by the names of the published tensors."""
    loss, norms = loss_and_gradients(structure, params, rows, media, labels)
    table = model_tensors(config)
    leaves = jax.tree_util.tree_leaves_with_path(norms)
    return {"loss": loss} | {f"gradnorm/{table[dotted(path)].name}": norm for path, norm in leaves}
