"""`theodolite base evaluate long-context`: what a model makes of contexts of some lengths."""

from dataclasses import dataclass
from pathlib import Path

from pipeline.config import PACKAGED, shipped_model
from training.errors import BadInput


@dataclass(frozen=True, kw_only=True)
class LongContext:
    """Values looked up by key at some depths of contexts of some lengths, and loss by position in long texts.

    Attributes:
        checkpoint: folder of the model; "shipped" is the tiny base model.
        lengths: tokens of the contexts; texts are as long as the longest.
        depths: how far down the line stands that is asked for, from 0 to 1.
        rows: questions at each length and depth.
        data: rows with `messages`, whose texts are joined to long ones, or "packaged" for held-out conversations.
        texts: how many long texts.
        seed: of keys, values and the order of the rows.
        out: folder that gets long_context.json and long_context.html.
    """

    checkpoint: str = "shipped"
    lengths: tuple[int, ...] = (128, 256, 512)
    depths: tuple[float, ...] = (0.0, 0.25, 0.5, 0.75, 1.0)
    rows: int = 20
    data: str = PACKAGED
    texts: int = 16
    seed: int = 0
    out: str = "runs/long-context"

    def __post_init__(self) -> None:
        """Checks the ranges."""
        if not self.lengths or min(self.lengths) < 1:
            raise BadInput(f"lengths are one or more numbers of tokens, not {list(self.lengths)}")
        if not self.depths or min(self.depths) < 0 or max(self.depths) > 1:
            raise BadInput(f"depths are one or more numbers from 0 to 1, not {list(self.depths)}")
        for name in ("rows", "texts"):
            if getattr(self, name) < 1:
                raise BadInput(f"{name} must be at least 1, not {getattr(self, name)}")


def long_context(config: LongContext) -> None:
    """Prints the figures and writes them with their plots."""
    import json

    from base_model import checkpoint
    from base_model.long_context import loss_by_position, retrieval
    from pipeline.gates import conversation
    from pipeline.page.long_context import page, tables
    from safety.statistics import clopper_pearson
    from training.files import write_whole
    from training.progress import progress

    model = checkpoint.load(shipped_model() if config.checkpoint == "shipped" else Path(config.checkpoint))
    pose = lambda question, answer: _answered(conversation(model, question, answer))  # noqa: E731
    longest, out = max(config.lengths), Path(config.out)
    found = []
    with progress("questions", total=len(config.lengths)) as advance:
        for length in config.lengths:
            options = {"length": length, "depths": config.depths, "rows": config.rows, "seed": config.seed}
            found += [(length, one) for one in retrieval(model, pose, **options)]
            advance(1)
    out.mkdir(parents=True, exist_ok=True)
    losses = loss_by_position(model, _texts(model, config, longest, out), length=longest)
    figures = {
        "checkpoint": config.checkpoint,
        "retrieval": [
            {"length": length, "tokens": one.length, "depth": one.depth, "found": one.found, "rows": one.rows,
             **clopper_pearson(one.found, one.rows, alpha=0.05)._asdict()}
            for length, one in found
        ],
        "loss": [part._asdict() for part in losses],
    }  # fmt: skip
    for line in tables(figures):
        print(line)
    write_whole(out / "long_context.json", json.dumps(figures, indent=1) + "\n")
    write_whole(out / "long_context.html", page(figures))
    print(f"Written to {out}")


def _answered(example):
    """Without the end of turn, which is learned but no part of the answer."""
    from dataclasses import replace

    learn = example.learn.copy()
    learn[-1] = False
    return replace(example, learn=learn)


def _texts(model, config: LongContext, length: int, out: Path) -> list:
    """Texts of at least so many tokens, each of many rows in a random order; fewer of them if the rows give out."""
    import numpy as np

    from base_model.chat import parts
    from pipeline.data.packaged import write_packaged_data
    from pipeline.plain_text import beginning
    from training.dataset import read_rows

    if config.data == PACKAGED:
        write_packaged_data(out / "data")
    rows = read_rows(str(out / "data" / "pretrain_heldout.jsonl") if config.data == PACKAGED else config.data)
    said = []
    for row in rows:
        content = [part for message in row.values.get("messages", ()) for part in parts(message.get("content"))]
        said.append("\n".join(part["text"] for part in content if part.get("type") == "text"))
    order, texts, held = np.random.default_rng(config.seed).permutation(len(said)), [], ""
    for index in order:
        held += said[index] + "\n"
        if len(held) > 2 * length and len(example := beginning(model, held)) >= length:
            texts.append(example)
            held = ""
        if len(texts) == config.texts:
            break
    if not texts:
        raise BadInput(f"the texts of all rows together have fewer than {length} tokens; give more data")
    return texts
