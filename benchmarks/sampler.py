"""The sampler beside transformers' `generate` on an equal model, in the same run; what giving rows on gains.

    python benchmarks/sampler.py --rounds 5     measure, then fill the tables
    python benchmarks/sampler.py                fill the tables from the last measurement

Measuring needs torch and transformers 5.23, which the project does not. The shipped model is exported for transformers;
both then draw 64 new tokens behind 64 prompts of 32, none of them ending early, and must agree on the greedy ones.
A third row shows what the float32 matrix products of that work take alone, beyond which nothing can go.
Figures go to benchmarks/results/sampler.json and from there into docs/published_models.md.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.parts import result  # noqa: E402

BATCH, PROMPT, NEW = 64, 32, 64
ROWS, COPIES = 256, 16
OTHERS = ("torch", "transformers")


def main() -> None:
    from pipeline import environment

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, help="times that everything is drawn, in turn; the best counts")
    rounds = parser.parse_args().rounds
    if rounds and environment.ALLOCATOR.items() - os.environ.items():  # read when a process starts
        subprocess.run([sys.executable, *sys.argv], check=True, env=os.environ | environment.ALLOCATOR)
        return
    if rounds:
        environment.prepare(os.environ)
        versions = {name: metadata.version(name) for name in OTHERS}
        print(result.write("sampler", {"rounds": rounds, "also": versions, **measure(rounds)}))
    found = result.read("sampler")
    page = ROOT / "docs" / "published_models.md"
    result.fill(page, "sampler", sampler_table(found["beside"]))
    result.fill(page, "room", room_table(found["room"]))


def best(rounds: int, works: Mapping[str, Callable[[], object]]) -> dict[str, dict[str, float]]:
    """Seconds and processor seconds of each work, done in turn; the least of each. The first time is not counted."""
    spent: dict[str, dict[str, float]] = {name: {} for name in works}
    for number in range(rounds + 1):
        for name, work in works.items():
            began = time.perf_counter(), time.process_time()
            work()
            took = {"seconds": time.perf_counter() - began[0], "processor": time.process_time() - began[1]}
            if number:
                spent[name] = {key: min(value, spent[name].get(key, value)) for key, value in took.items()}
    return {name: {key: round(value, 4) for key, value in found.items()} for name, found in spent.items()}


def measure(rounds: int) -> dict[str, Any]:
    from base_model import checkpoint
    from pipeline.config import shipped_model

    model = checkpoint.load(shipped_model())
    return {"beside": beside_transformers(model, rounds), "room": making_room(model, rounds)}


def beside_transformers(model: Any, rounds: int) -> dict[str, Any]:
    import jax
    import numpy as np
    import torch
    from transformers import AutoModelForCausalLM

    from base_model.batch import pad_left
    from base_model.checkpoint import structure_of
    from base_model.generate import reply_keys
    from base_model.interleave import Example
    from base_model.sampling import SamplingConfig, Vocabulary, sample
    from pipeline import cli
    from pipeline.config import shipped_model

    rng = np.random.default_rng(0)
    tokens = rng.integers(300, model.config.vocab_size, (BATCH, PROMPT)).astype(np.int32)
    prompts = pad_left([Example(tokens=row, learn=np.zeros(PROMPT, bool)) for row in tokens], PROMPT)
    structure, keys = structure_of(model.config, model.tokenizer), reply_keys(jax.random.key(0), np.arange(BATCH), 1)
    endless = Vocabulary(-1, ())

    def ours(temperature: float) -> np.ndarray:
        config = SamplingConfig(max_new_tokens=NEW, temperature=temperature)
        return np.asarray(sample(structure, model.params, prompts, keys, vocabulary=endless, config=config).tokens)

    with tempfile.TemporaryDirectory() as folder:
        assert cli.main(["base", "export", str(shipped_model()), f"out={folder}/model", "towers=false"]) == 0
        other = AutoModelForCausalLM.from_pretrained(f"{folder}/model", dtype=torch.float32).eval()
    asked = torch.tensor(tokens, dtype=torch.long)

    def theirs(draw: bool) -> np.ndarray:
        options = {"do_sample": True, "top_k": 0, "top_p": 1.0, "temperature": 1.0} if draw else {"do_sample": False}
        with torch.inference_mode():
            out = other.generate(
                asked, attention_mask=torch.ones_like(asked), max_new_tokens=NEW, eos_token_id=None, pad_token_id=0,
                suppress_tokens=None, **options,
            )  # fmt: skip
        return out[:, PROMPT:].numpy()

    greedy = [ours(0.0), theirs(False)]
    assert greedy[1].shape == (BATCH, NEW)
    same = float((greedy[0] == greedy[1]).all(1).mean())  # a near tie that rounding decides changes all that follows
    assert same > 0.9, f"the two models are not equal: of their greedy replies {same:.0%} are"
    works = {"ours": partial(ours, 1.0), "transformers": partial(theirs, True), "products": products(model.params)}
    return {"batch": BATCH, "prompt": PROMPT, "new_tokens": NEW, "same_greedy": round(same, 4),
            "threads": torch.get_num_threads(), "parameters": sum(p.numel() for p in other.parameters()),
            **best(rounds, works)}  # fmt: skip


def products(params: Any) -> Callable[[], object]:
    """The matrix products of the same work and nothing else: what is left is the least that float32 takes here."""
    import jax
    import jax.numpy as jnp

    kernels = [leaf for leaf in jax.tree.leaves(params["blocks"]) if leaf.ndim == 2]
    head = params["embedding"].T

    def of_rows(rows: int, kernels: list[jax.Array], before: jax.Array) -> jax.Array:
        for kernel in kernels:  # each waits for the one before; the barrier keeps all of the product
            product = jax.lax.optimization_barrier(jnp.full((rows, len(kernel)), before) @ kernel)
            before = product[0, 0] * 1e-9
        return before

    @jax.jit
    def work(kernels: list[jax.Array], head: jax.Array) -> jax.Array:
        read = of_rows(BATCH * PROMPT, kernels, jnp.float32(1))
        return jax.lax.fori_loop(0, NEW, lambda _, before: of_rows(BATCH, [head, *kernels], before), read)

    return lambda: work(kernels, head).block_until_ready()


def making_room(model: Any, rounds: int) -> dict[str, Any]:
    """Replies of the shipped model, of ragged lengths, with rows given on and with batches drawn to their end."""
    import jax
    import numpy as np

    from base_model.batch import pad_left
    from base_model.checkpoint import structure_of
    from base_model.generate import reply_keys, vocabulary_of
    from base_model.pool import Waiting, draw_all
    from base_model.sampling import SamplingConfig, sample
    from pipeline.gates import conversation

    texts = [f"{start} {end}?" for start in ("Do you like", "Have you seen", "What do you think of", "Tell me about")
             for end in ("music", "the sea", "football", "my cat", "cheese", "trains", "that film", "winter",
                         "his car", "dancing", "the news", "Italy", "tea", "work", "books", "snow")]  # fmt: skip
    prompts = [conversation(model, text) for text in texts]
    structure, vocabulary = structure_of(model.config, model.tokenizer), vocabulary_of(model)
    numbers, at_once = np.arange(len(prompts), dtype=np.uint32), ROWS // COPIES
    keys = reply_keys(jax.random.key(0), numbers, COPIES)
    waiting = [
        Waiting(pad_left(prompts[first : first + at_once], 64), keys[first * COPIES : (first + at_once) * COPIES], ROWS)
        for first in range(0, len(prompts), at_once)
    ]
    found: dict[str, Any] = {"rows": ROWS, "replies": len(prompts) * COPIES}
    for new in (20, 64):
        config = SamplingConfig(max_new_tokens=new)
        options: dict[str, Any] = {"vocabulary": vocabulary, "config": config, "copies": COPIES}

        def to_the_end(options: dict[str, Any] = options) -> list[np.ndarray]:
            drawn = [sample(structure, model.params, part.prompts, part.keys, **options) for part in waiting]
            return [row[mask] for part in drawn for row, mask in zip(*map(np.asarray, part[:2]), strict=True)]

        def giving_on(options: dict[str, Any] = options) -> list[np.ndarray]:
            drawn = draw_all(structure, model.params, iter(waiting), rows=ROWS, **options)
            return [reply.tokens for reply in sorted(drawn, key=lambda reply: reply.number)]

        replies = [to_the_end(), giving_on()]
        same = sum(np.array_equal(*pair) for pair in zip(*replies, strict=True))
        lengths = np.array([len(row) for row in replies[0]])
        times = best(rounds, {"to_the_end": to_the_end, "giving_on": giving_on})
        found[str(new)] = {"same": same, "mean_length": round(float(lengths.mean()), 2), **times}
    return found


def sampler_table(found: dict[str, Any]) -> str:
    tokens = found["batch"] * found["new_tokens"]
    rows = []
    names = {"ours": "theodolite", "transformers": "transformers `generate`", "products": "the matrix products alone"}
    for name, words in names.items():
        spent = found[name]
        ratios = [found["transformers"][key] / spent[key] for key in ("seconds", "processor")]
        rows.append([words, f"{tokens / spent['seconds']:,.0f}", f"{ratios[0]:.1f}",
                     f"{tokens / spent['processor']:,.0f}", f"{ratios[1]:.1f}"])  # fmt: skip
    head = f"{found['batch']} prompts of {found['prompt']} tokens, {found['new_tokens']} new ones"
    return result.table([head, "tokens a second", "times", "tokens a processor second", "times"], rows)


def room_table(found: dict[str, Any]) -> str:
    rows = []
    for new in ("20", "64"):
        one = found[new]
        for name, words in (("to_the_end", "batches drawn to their end"), ("giving_on", "rows given on")):
            spent = one[name]
            gain = one["to_the_end"]["processor"] / spent["processor"]
            rows.append([f"{words}, {new} tokens at most, {one['mean_length']:.1f} on average",
                         f"{found['replies'] / spent['seconds']:,.0f}",
                         f"{found['replies'] / spent['processor']:,.0f}", f"{gain:.2f}"])  # fmt: skip
    head = f"{found['replies']:,} replies, {found['rows']} at a time"
    return result.table([head, "replies a second", "replies a processor second", "times"], rows)


if __name__ == "__main__":
    main()
