"""`theodolite base quantize`: a checkpoint in 4 or 8 bits."""

from dataclasses import dataclass
from typing import Literal

from pipeline.config import shipped_model
from training.errors import BadInput


@dataclass(frozen=True, kw_only=True)
class BaseQuantize:
    """Writes a checkpoint whose matrices and embeddings are rounded to 4 or 8 bits; every command reads it.

    Attributes:
        checkpoint: folder of the model; "shipped" is the tiny base model.
        out: folder of the smaller checkpoint.
        weights: int4 or int8.
        data: rows of conversations, or of prompts and completions, on which the loss is measured before and after; ""
            leaves that out.
    """

    checkpoint: str = "shipped"
    out: str
    weights: Literal["int4", "int8"] = "int4"
    data: str = ""


def quantize(config: BaseQuantize) -> None:
    """Writes the checkpoint, and prints what it saves and what it costs."""
    from pathlib import Path

    from base_model import checkpoint
    from base_model.checkpoint import LanguageModel, structure_of
    from base_model.likelihood import held_out
    from base_model.quantized import quantiser
    from sft.config import SFTConfig
    from sft.data import sft_examples
    from training.dataset import read_rows

    quantiser()  # whatever is wrong is found before anything is written
    folder, out = shipped_model() if config.checkpoint == "shipped" else Path(config.checkpoint), Path(config.out)
    kind = checkpoint.kind_of(folder)
    model, examples = checkpoint.load(folder, kind=kind), []
    if config.data:
        if kind == "scalar":
            raise BadInput("data is for the loss of a language model; leave it out for a reward model")
        examples = sft_examples(read_rows(config.data), model, SFTConfig(max_length=model.config.max_context))

    def size(path: Path) -> int:
        return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())

    def loss(of: LanguageModel) -> float:
        return held_out(structure_of(of.config, of.tokenizer), of.params, examples).loss

    checkpoint.save(model, out, weights=config.weights)
    smaller = checkpoint.load(out, kind=kind)
    print(f"{size(folder):,} bytes before, {size(out):,} after")
    if examples:
        print(f"{loss(model):.4f} nats a learned token before, {loss(smaller):.4f} after")
    print(f"Model: {out}")
