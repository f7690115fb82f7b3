"""The shipped model beside n-gram models of the same tokens, and its answers about pictures that it does not see.

    python benchmarks/language_model.py [--data DIR] [--questions N]

DIR holds the files that the model was pretrained on; without it they are written to runs/base/data. Figures go to
benchmarks/results/language_model.json and from there into docs/results.md.
"""

import argparse
import sys
from collections import Counter, defaultdict
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.parts import result  # noqa: E402
from benchmarks.parts.kneser_ney import KneserNey  # noqa: E402
from benchmarks.parts.packaged import packaged_files  # noqa: E402

MODEL = ROOT / "base_model" / "tiny"
LENGTH = 128  # of the pieces that the model was trained on, as configs/tiny_base.yaml says
ORDERS = (3, 4, 5)
RESAMPLES = 2000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder with pretrain.jsonl and pretrain_heldout.jsonl")
    parser.add_argument("--questions", type=int, help="so many, drawn with seed 0, instead of the whole test split")
    given = parser.parse_args()
    print(result.write("language_model", measure(packaged_files(given.data), given.questions)))
    draw()


def measure(data: Path, questions: int | None) -> dict[str, Any]:
    """All figures."""
    from base_model import checkpoint
    from base_model.config import read_config
    from training.dataset import read_rows

    model = checkpoint.load(MODEL)
    train, held_out = (read_rows(data / f"{name}.jsonl") for name in ("pretrain", "pretrain_heldout"))
    # An n-gram sees no picture; blank ones keep their places in the sequence.
    learned = {"all": read(map(blank, train), model), "conversations": read(filter(is_text, train), model)}
    ngrams = {
        f"{rows}, {order}": KneserNey.train(learned[rows].examples, order=order, vocab_size=model.config.vocab_size)
        for rows, orders in (("all", ORDERS), ("conversations", ORDERS[-1:]))
        for order in orders
    }
    everything = scored(read(held_out, model), model, ngrams)
    talk = np.array([row.values["source"] == "chitchat" for row in held_out])
    # The first token of a piece has nothing before it and is not scored; pieces that overlap by one leave none out.
    overlapping = read([row for row, chosen in zip(held_out, talk, strict=True) if chosen], model, overlap=1)
    return {
        "model": read_config(MODEL / "config.json")["content_digest"],
        "trained_on": {name: text.size() for name, text in learned.items()},
        "discounts": {name: [order.discounts[1:].tolist() for order in kept.orders] for name, kept in ngrams.items()},
        "held_out": {
            "conversations": compare(everything, talk),
            "conversations, overlapping": compare(scored(overlapping, model, ngrams), np.full(talk.sum(), True)),
            "everything": compare(everything, np.full(len(talk), True)),
        },
        "pictures": pictures(model, data, questions),
    }


class Text(NamedTuple):
    """Rows as the model reads them.

    Attributes:
        examples: pieces of the rows.
        row: the number of the row that each is from.
        bytes: UTF-8 bytes of what is said in each row.
    """

    examples: list[Any]
    row: np.ndarray
    bytes: np.ndarray

    @property
    def learned(self) -> np.ndarray:
        """Tokens to be predicted, of each example."""
        return np.array([int(example.learn[1:].sum()) for example in self.examples])

    def size(self) -> dict[str, int]:
        return {"rows": len(self.bytes), "tokens": int(self.learned.sum()), "bytes": int(self.bytes.sum())}


def read(rows: Any, model: Any, *, overlap: int = 0) -> Text:
    """The pieces of LENGTH tokens that pretraining makes of rows; with `overlap`, each starts in the last one."""
    from base_model.chat import parts
    from base_model.interleave import Example
    from base_model.pretrain import pretraining_examples

    examples, row_of, sizes = [], [], []
    for number, row in enumerate(rows):
        pieces = pretraining_examples([row], model.tokenizer, model.config, max_length=10**6 if overlap else LENGTH)
        if overlap:
            tokens, learn, step = pieces[0].tokens, pieces[0].learn, LENGTH - overlap
            starts = range(0, max(1, len(tokens) - overlap), step)
            pieces = [Example(tokens=tokens[i : i + LENGTH], learn=learn[i : i + LENGTH]) for i in starts]
        said = [part for message in row.values["messages"] for part in parts(message["content"])]
        sizes.append(sum(len(part["text"].encode()) for part in said if part["type"] == "text"))
        examples += pieces
        row_of += [number] * len(pieces)
    return Text(examples, np.array(row_of), np.array(sizes))


def is_text(row: Any) -> bool:
    return row.values["source"] in ("chitchat", "chatterbot")


def blank(row: Any) -> Any:
    """The row with blank pictures, which need not be read from disk."""
    from base_model.chat import parts

    picture = np.zeros((64, 64, 3), np.uint8)
    hide = lambda part: {**part, "image": picture} if part["type"] == "image" else part  # noqa: E731
    messages = [{**m, "content": [hide(part) for part in parts(m["content"])]} for m in row.values["messages"]]
    return replace(row, values={**row.values, "messages": messages})


class Scored(NamedTuple):
    """Of each row: bytes, tokens to be predicted, and the bits that each model takes for them."""

    bytes: np.ndarray
    tokens: np.ndarray
    bits: dict[str, np.ndarray]


def scored(text: Text, model: Any, ngrams: dict[str, KneserNey]) -> Scored:
    """The shipped model and the n-grams on the same tokens."""
    from base_model.checkpoint import structure_of
    from base_model.likelihood import held_out

    shipped = held_out(structure_of(model.config, model.tokenizer), model.params, text.examples)
    learned, of_rows = text.learned, lambda values, rows: np.bincount(rows, values, len(text.bytes))
    bits = {"shipped": of_rows(shipped.nll / np.log(2), text.row)}
    for name, ngram in ngrams.items():
        bits[name] = of_rows(-np.log2(ngram.probabilities(text.examples)), np.repeat(text.row, learned))
    return Scored(text.bytes, of_rows(learned, text.row), bits)


def compare(text: Scored, chosen: np.ndarray) -> dict[str, Any]:
    """Bits a byte of every model on the chosen rows, and how far it is above the shipped one, rows resampled."""
    size, tokens = text.bytes[chosen], int(text.tokens[chosen].sum())
    drawn = np.random.default_rng(0).integers(0, len(size), (RESAMPLES, len(size)))
    figures = {}
    for name, bits in text.bits.items():
        worse = (bits - text.bits["shipped"])[chosen]
        figures[name] = {
            "bits_per_byte": bits[chosen].sum() / size.sum(),
            "nats_per_token": bits[chosen].sum() * np.log(2) / tokens,
            "above_shipped": worse.sum() / size.sum(),
            "interval": np.quantile(worse[drawn].sum(1) / size[drawn].sum(1), [0.025, 0.975]).tolist(),
        }
    return {"rows": len(size), "tokens": tokens, "bytes": int(size.sum()), "models": figures}


def pictures(model: Any, data: Path, count: int | None) -> dict[str, Any]:
    """Greedy replies to the questions of easy-vqa's test split that are exactly the answer."""
    from base_model.chat import messages_to_segments
    from base_model.generate import generate
    from base_model.interleave import Example, interleave
    from base_model.media import blanked
    from base_model.sampling import SamplingConfig
    from pipeline.data.pictures import questions

    asked = questions(data, "test")
    if count is not None:
        asked = [asked[i] for i in np.random.default_rng(0).permutation(len(asked))[:count]]

    def prompt(question) -> Example:
        content = [{"type": "image", "image": question.picture}, {"type": "text", "text": question.question}]
        segments = messages_to_segments(
            [{"role": "user", "content": content}], model.tokenizer, folder=data, ending="reply"
        )
        return interleave(segments, model.tokenizer, model.config)

    shown = [prompt(question) for question in asked]
    hidden = [replace(example, media=blanked(example.media)) for example in shown]
    answers = defaultdict(Counter)
    for question in questions(data, "train"):
        answers[question.question][question.answer] += 1
    commonest = {question: counted.most_common(1)[0][0] for question, counted in answers.items()}
    greedy = SamplingConfig(max_new_tokens=8, temperature=0)
    replies = {
        "shown": [reply for (reply,) in generate(model, shown, greedy)],
        "blank": [reply for (reply,) in generate(model, hidden, greedy)],
        "commonest": [commonest.get(question.question, "") for question in asked],
    }
    by_picture = np.unique([question.picture for question in asked], return_inverse=True)[1]
    return {
        "questions": len(asked), "pictures": int(by_picture.max()) + 1,
        **{name: share([a == q.answer for a, q in zip(said, asked, strict=True)], by_picture)
           for name, said in replies.items()},
    }  # fmt: skip


def share(right: list[bool], cluster: np.ndarray) -> dict[str, Any]:
    """Share of right answers; the interval resamples pictures with all their questions."""
    hits, sizes = np.bincount(cluster, right), np.bincount(cluster)
    drawn = np.random.default_rng(0).integers(0, len(sizes), (RESAMPLES, len(sizes)))
    shares = hits[drawn].sum(1) / sizes[drawn].sum(1)
    return {"exact_match": hits.sum() / sizes.sum(), "interval": np.quantile(shares, [0.025, 0.975]).tolist()}


def draw() -> None:
    """Puts the figures into docs/results.md."""
    figures = result.read("language_model")
    held_out, asked = figures["held_out"], figures["pictures"]
    columns = list(held_out)
    header = ["bits a byte of what is said", *columns]
    rows = [["learned tokens / bytes", *(f"{held_out[c]['tokens']:,} / {held_out[c]['bytes']:,}" for c in columns)]]
    for name in held_out[columns[0]]["models"]:
        rows.append([named(name), *(cell(held_out[column]["models"][name], name) for column in columns)])
    result.fill(ROOT / "docs" / "results.md", "language_model", result.table(header, rows))
    header = [f"{asked['questions']:,} questions about {asked['pictures']:,} pictures", "exact match", "95 %"]
    names = {
        "shown": "shipped model, with the picture",
        "blank": "shipped model, with a blank one",
        "commonest": "each question's commonest answer in the training split",
    }
    rows = [
        [text, f"{asked[name]['exact_match']:.3f}", "{:.3f} to {:.3f}".format(*asked[name]["interval"])]
        for name, text in names.items()
    ]
    result.fill(ROOT / "docs" / "results.md", "questions", result.table(header, rows))


def named(name: str) -> str:
    if name == "shipped":
        return "shipped model"
    rows, order = name.split(", ")
    return f"modified Kneser-Ney, order {order}" + ("" if rows == "all" else f", trained on {rows} only")


def cell(figures: dict, name: str) -> str:
    if name == "shipped":
        return f"{figures['bits_per_byte']:.3f}"
    low, high = figures["interval"]
    return f"{figures['bits_per_byte']:.3f} (+{figures['above_shipped']:.3f}, 95 %: {low:.3f} to {high:.3f})"


if __name__ == "__main__":
    main()
