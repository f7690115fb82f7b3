"""Pretraining on conversations, questions, captions, pictures, sounds and clips.

`theodolite base pretrain --config configs/tiny_base.yaml` makes the shipped tiny model. A run that was stopped goes on
from its last saved state when the same command is given again.
"""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from base_model import checkpoint
from base_model.batch import Batch, pack
from base_model.chat import messages_to_segments, parts, parts_of
from base_model.checkpoint import LanguageModel, build, logical_axes, split, structure_of
from base_model.config import ModelConfig
from base_model.growth import grown
from base_model.interleave import Example, digest, interleave, require_fits, require_read
from base_model.likelihood import cross_entropy, held_out
from base_model.media import Media, count, room
from base_model.pretrain_config import PretrainConfig
from base_model.tokenizer import Tokenizer
from base_model.vision_warmup import warm_up
from training.checkpoint import content_digest, latest_step
from training.dataset import Row, convert_rows, read_rows
from training.errors import BadInput
from training.minimise import mesh_of, minimise
from training.packing import PackedStream


def pretraining_examples(
    rows: Sequence[Row], tokenizer: Tokenizer, config: ModelConfig, *, max_length: int, on_bad_row: str | None = None
) -> list[Example]:
    """Conversations as examples with the loss on every token; long text without media is cut into pieces."""
    read = _read(rows, tokenizer, config, max_length=max_length, on_bad_row=on_bad_row)
    return [example for _, examples in read for example in examples]


def _read(
    rows: Sequence[Row], tokenizer: Tokenizer, config: ModelConfig, *, max_length: int, on_bad_row: str | None
) -> list[tuple[Row, list[Example]]]:
    """The rows that are usable, each with its examples."""

    def convert(row: Row) -> tuple[Row, list[Example]]:
        segments = messages_to_segments(row.values.get("messages", ()), tokenizer, folder=row.folder, loss_on="all")
        example = interleave(segments, tokenizer, config)
        require_read(row.values, [example], tokenizer)
        # Brackets stand around pictures that are drawn, too, which no piece may have half of.
        if len(example) <= max_length or np.isin(example.tokens, tokenizer.media).any():
            return row, [require_fits(example, max_length, "max_length")]
        pieces = [slice(i, i + max_length) for i in range(0, len(example), max_length)]
        return row, [Example(tokens=example.tokens[piece], learn=example.learn[piece]) for piece in pieces]

    return convert_rows(rows, convert, on_bad_row=on_bad_row)


def train_tokenizer(data: Path, *, vocab_size: int, on_bad_row: str | None = None) -> Tokenizer:
    """A tokenizer trained on all that is said in the conversations of a data set."""

    def said(row: Row) -> list[str]:
        found = [part.get("text") for part in parts_of(row.values)]
        return [text for text in found if isinstance(text, str) and text]

    rows = convert_rows(read_rows(data, on_bad_row=on_bad_row), said, on_bad_row=on_bad_row)
    texts = [text for row in rows for text in row]
    if not texts:
        raise BadInput(f"{data} holds no text to train a tokenizer on")
    return Tokenizer.train(texts, vocab_size=vocab_size)


def augment(images: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Shifts each picture by up to eight pixels, its background following, and mirrors half of them."""
    shifted = np.empty_like(images)
    for place in np.ndindex(images.shape[:2]):
        picture = np.roll(images[place], rng.integers(-8, 9, 2), (0, 1))
        shifted[place] = picture[:, ::-1] if rng.random() < 0.5 else picture
    return shifted


def pretrain(
    config: PretrainConfig,
    model_config: ModelConfig,
    tokenizer: Tokenizer,
    *,
    data: Path,
    held_out_data: Path,
    start: LanguageModel | None = None,
) -> LanguageModel:
    """Trains a model and writes it to output_dir/checkpoint as safetensors.

    Args:
        config: options.
        model_config: sizes.
        tokenizer: of all that it reads and writes.
        data: rows to learn from.
        held_out_data: rows to measure on.
        start: a model to go on from, whose ids the tokenizer has, too; without one, all parameters are fresh.

    Returns:
        The trained model.
    """
    folder, length, bad = Path(config.output_dir), config.max_length, config.on_bad_row
    rows, held_out_rows = (read_rows(path, on_bad_row=bad) for path in (data, held_out_data))
    read = _read(rows, tokenizer, model_config, max_length=length, on_bad_row=bad)
    rows, examples = [row for row, _ in read], [example for _, pieces in read for example in pieces]
    stream = PackedStream([len(example) for example in examples], config.max_length, seed=config.seed)
    first_epoch = [[examples[i].media for i in row] for row in stream.rows(0, stream.rows_per_epoch)]
    # Another epoch often packs one more picture into a row than the first does. A row with still more is rare: it gets
    # a wider batch, compiled for itself, instead of an error.
    slots = Media(*(int(most) + 1 for most in np.max([count(row) for row in first_epoch], 0)))
    media = room(first_epoch, slots=slots)
    module = build(
        model_config, tokenizer, seed=config.seed,
        dtype=config.matmul_dtype, remat=config.gradient_checkpointing, mesh=mesh_of(config),
    )  # fmt: skip
    structure, params = split(module)
    if start is not None:
        params = grown(params, start.params)
    # A run that was stopped before its first state was saved starts over, and so with the same encoder.
    if latest_step(folder / "state") is None and (start is None or start.config.vision is None):
        params = warm_up(structure, params, rows, model_config, steps=config.vision_warmup_steps, seed=config.seed)

    def batch_at(step: int, rows: int) -> Batch:
        packed = [[examples[i] for i in row] for row in stream.rows(step * rows, rows)]
        batch = pack(packed, config.max_length, media)
        if not config.augment or not isinstance(batch.media.images, np.ndarray):
            return batch
        images = augment(batch.media.images, np.random.default_rng((config.seed, 1, step)))
        return batch._replace(media=batch.media._replace(images=images))

    figures = HeldOutFigures(held_out_rows, tokenizer, model_config, max_length=length, on_bad_row=bad)
    evaluate_structure = structure_of(model_config, tokenizer)
    state = minimise(
        partial(cross_entropy, structure), params, logical_axes(module), batch_at=batch_at,
        examples=stream.rows_per_epoch, config=config, label="pretraining",
        identity=(
            model_config.to_json(), tokenizer.digest, digest(examples),
            *([] if start is None else [content_digest(start.params)]),
        ),
        evaluate=lambda params: figures(evaluate_structure, params),
    )  # fmt: skip
    model = LanguageModel(config=model_config, tokenizer=tokenizer, params=state.params, statistics={})
    if not (folder / "checkpoint").exists():
        checkpoint.save(model, folder / "checkpoint", weights="safetensors")
    return model


# Of each source of rows with one right answer, the name of its figure.
EXACT_MATCH = {"easy-vqa": "vqa_exact_match", "clips": "clip_exact_match", "beeps": "beeps_exact_match",
               "speech": "speech_exact_match"}  # fmt: skip


class HeldOutFigures:
    """Figures of held-out rows of each modality that there is.

    Bits per byte of conversations, exact match of answers about pictures, clips and sounds, and nats a token of
    pictures to be drawn, brackets and end of turn among them.
    """

    def __init__(
        self,
        rows: Sequence[Row],
        tokenizer: Tokenizer,
        config: ModelConfig,
        *,
        max_length: int,
        on_bad_row: str | None = None,
    ):
        """Prepares the examples once."""
        text = [row for row in rows if row.values.get("source") == "chitchat"]
        read = _read(text, tokenizer, config, max_length=max_length, on_bad_row=on_bad_row) if text else []
        text, self._text = [row for row, _ in read], [example for _, pieces in read for example in pieces]
        said = [parts(message["content"]) for row in text for message in row.values["messages"]]
        self._bytes = sum(len(part["text"].encode()) for message in said for part in message if part["type"] == "text")

        def convert(row: Row) -> Example:
            messages = row.values.get("messages", ())
            segments = messages_to_segments(messages, tokenizer, folder=row.folder, loss_on="last")
            return interleave(segments, tokenizer, config)

        by_source = {name: [row for row in rows if row.values.get("source") == name] for name in EXACT_MATCH}
        usable = partial(convert_rows, convert=convert, on_bad_row=on_bad_row)
        self._answers = {name: usable(asked) for name, asked in by_source.items() if asked}
        drawn = [row for row in rows if str(row.values.get("source")).startswith("draw-")]
        self._drawn = usable(drawn) if drawn and tokenizer.image_codes else []

    def __call__(self, structure: Any, params: Any) -> dict[str, float]:
        """Every learned token's bits, ends of turns among them, over the UTF-8 bytes of what was said."""
        figures = {}
        if self._text:
            text = held_out(structure, params, self._text)
            figures |= {"loss": text.loss, "bits_per_byte": float(text.nll.sum() / np.log(2) / self._bytes)}
        for source, answers in self._answers.items():
            figures[EXACT_MATCH[source]] = held_out(structure, params, answers).exact_match
        if self._drawn:
            figures["drawing_loss"] = held_out(structure, params, self._drawn).loss
        return figures
