"""The scorer in JAX against the package's logits on tiny random classifiers (tests/fixtures/detoxify)."""

import json
import shutil

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mortal import Nursery
from safetensors.numpy import load_file, save_file
from scipy.special import expit
from tiny_detoxify import FAMILIES, FIXTURES

from safety.scorer import Scorer, check_scores
from safety.scorers import open_scorer
from safety.scorers.convert import rename
from safety.scorers.detoxify_jax import PER_TEXT, WIDTHS, DetoxifyJaxScorer, Shape, lay_out, plan, read_config
from safety.scorers.encoder import logits
from training.errors import BadInput

LOGITS = jax.jit(logits, static_argnames="config")


@pytest.fixture(scope="module", params=FAMILIES)
def family(request):
    return request.param


@pytest.fixture(scope="module")
def scorer(family):
    return DetoxifyJaxScorer(FIXTURES / family)


@pytest.fixture(scope="module")
def golden(family):
    """Texts and the package's logits, all in one batch padded to the longest."""
    content = json.loads((FIXTURES / f"{family}.json").read_text())
    return content["texts"], np.array(content["logits"])


def run(scorer, texts, width, config):
    """Logits of texts, each in a row of a width by itself."""
    ids = [encoding.ids for encoding in scorer._tokenizer.encode_batch(texts)]
    batch = Shape(tuple((text,) for text in range(len(ids))), len(ids), width)
    return np.asarray(LOGITS(scorer._params, lay_out(batch, ids, config), config=config))[:, 0]


def test_logits_are_those_of_the_package(family, scorer, golden):
    """Padding, cut texts and spelled special tokens included; the logits differ enough for that to mean something."""
    texts, wanted = golden
    config = read_config(FIXTURES / family)
    assert wanted.std(0).min() > 0.02
    np.testing.assert_allclose(run(scorer, texts, config.max_tokens, config), wanted, rtol=0, atol=1e-5)
    for text, row in list(zip(texts, wanted, strict=True))[:4]:  # without padding
        width = len(scorer._tokenizer.encode(text).ids)
        np.testing.assert_allclose(run(scorer, [text], width, config), row[None], rtol=0, atol=1e-5)


def test_scores_in_the_order_of_the_texts(scorer, golden):
    """Batches by length, equal texts once: what comes back is in order and one for each."""
    texts, wanted = golden
    order = [3, 0, 9, 9, 1, 2, 4, 8, 7, 6, 5, 0]
    scores = check_scores(scorer.score([texts[i] for i in order]), scorer.labels, len(order))
    found = np.stack([scores[label] for label in scorer.labels], 1)
    np.testing.assert_allclose(found, expit(wanted[order]), rtol=0, atol=3e-6)
    assert scorer.score([])["toxicity"].shape == (0,)


def test_identity_and_name(family, scorer, tmp_path):
    """Pinned by every byte of the folder; opened by the option's name."""
    assert isinstance(scorer, Scorer)
    assert "toxicity" in scorer.labels and "identity_attack" in scorer.labels
    copy = tmp_path / family
    shutil.copytree(FIXTURES / family, copy)
    again = open_scorer(f"detoxify:{copy}")
    assert again.identity == scorer.identity and again.identity.name == f"detoxify-{family}"
    (copy / "tokenizer.json").write_text((copy / "tokenizer.json").read_text() + "\n")
    assert open_scorer(f"detoxify:{copy}").identity.digest != scorer.identity.digest


def test_texts_of_one_row_do_not_see_each_other(family, scorer, golden):
    """All in rows of several, beginning anywhere, equal the package's logits as if alone."""
    texts, wanted = golden
    config = read_config(FIXTURES / family)
    ids = [encoding.ids for encoding in scorer._tokenizer.encode_batch(texts)]
    short = sorted(range(len(ids)), key=lambda text: len(ids[text]))[:8]
    batch = Shape((tuple(short[::2]), tuple(short[1::2])), 4, 128)
    assert sum(len(ids[text]) for text in short) > 40
    found = np.asarray(LOGITS(scorer._params, lay_out(batch, ids, config), config=config))
    for row, of_row in zip(found, batch.texts, strict=False):
        np.testing.assert_allclose(row[: len(of_row)], wanted[list(of_row)], rtol=0, atol=1e-5)


@settings(derandomize=True, deadline=None, max_examples=60, database=None)
@given(st.lists(st.integers(1, 512), max_size=300), st.sampled_from([1, 3, 8]))
def test_plan(lengths, shards):
    """Every text once, in a row that holds it, in batches that the devices can share and not much of nothing."""
    batches = plan(lengths, shards=shards)
    assert sorted(text for batch in batches for row in batch.texts for text in row) == list(range(len(lengths)))
    for batch in batches:
        assert batch.rows % shards == 0 and len(batch.texts) <= batch.rows
        assert max(sum(lengths[text] for text in row) for row in batch.texts) <= batch.width in WIDTHS
        assert max(map(len, batch.texts)) <= batch.width // PER_TEXT
        assert batch.rows * batch.width <= max(2048, shards * batch.width)
        assert batch.rows < 2 * len(batch.texts) + shards or batch.rows == shards
    if lengths:
        assert len({(batch.rows, batch.width) for batch in batches}) <= len(WIDTHS) + 8


def test_rows_are_full():
    """Of texts as replies are: hardly a place is computed for nothing, and scoring many takes few shapes."""
    lengths = np.random.default_rng(0).integers(4, 45, size=2000).tolist()
    batches = plan(lengths)
    assert sum(batch.rows * batch.width for batch in batches) < 1.05 * sum(lengths)
    assert len({(batch.rows, batch.width) for batch in batches}) <= 2


def published(config):
    """Random tensors under the names of a published BERT."""
    rng = np.random.default_rng(0)
    d, f = config.width, config.hidden
    shapes = {
        "embeddings.word_embeddings.weight": (config.vocab_size, d),
        "embeddings.position_embeddings.weight": (config.positions, d),
        "embeddings.token_type_embeddings.weight": (2, d),
        "embeddings.LayerNorm.weight": (d,), "embeddings.LayerNorm.bias": (d,),
        "pooler.dense.weight": (d, d), "pooler.dense.bias": (d,),
    }  # fmt: skip
    for number in range(config.layers):
        for part in ("attention.self.query", "attention.self.key", "attention.self.value", "attention.output.dense"):
            shapes |= {f"encoder.layer.{number}.{part}.weight": (d, d), f"encoder.layer.{number}.{part}.bias": (d,)}
        for part in ("attention.output.LayerNorm", "output.LayerNorm"):
            shapes |= {f"encoder.layer.{number}.{part}.weight": (d,), f"encoder.layer.{number}.{part}.bias": (d,)}
        up, down = f"encoder.layer.{number}.intermediate.dense", f"encoder.layer.{number}.output.dense"
        shapes |= {f"{up}.weight": (f, d), f"{up}.bias": (f,), f"{down}.weight": (d, f), f"{down}.bias": (d,)}
    tensors = {f"bert.{name}": rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
    labels = len(config.labels)
    tensors |= {"classifier.weight": rng.normal(size=(labels, d)), "classifier.bias": rng.normal(size=labels)}
    return tensors


def test_every_tensor_is_taken_and_none_made_up():
    config = read_config(FIXTURES / "bert")
    tensors = published(config)
    params = rename(tensors | {"bert.embeddings.position_ids": np.arange(3)}, config)
    second = tensors["bert.encoder.layer.1.intermediate.dense.weight"]
    np.testing.assert_array_equal(params["layers.up.kernel"][1], second.T)
    for name in tensors:
        with pytest.raises(BadInput, match="has no tensor|pooler"):
            rename({key: value for key, value in tensors.items() if key != name}, config)
    with pytest.raises(BadInput, match="1 tensors that no bert has, such as encoder.layer.2"):
        rename(tensors | {"bert.encoder.layer.2.output.dense.bias": np.zeros(3)}, config)
    with pytest.raises(BadInput, match="not finite"):
        rename(tensors | {"classifier.bias": np.full(len(config.labels), np.nan)}, config)
    with pytest.raises(BadInput, match="the shape"):
        rename(tensors | {"classifier.bias": np.zeros(2)}, config)


def change_config(folder, **changes):
    path = folder / "config.json"
    content = json.loads(path.read_text())
    content["encoder"] |= changes
    path.write_text(json.dumps(content))


def change_weights(folder, change):
    params = load_file(folder / "model.safetensors")
    change(params)
    save_file(params, folder / "model.safetensors")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda f: (f / "config.json").unlink(), "no config of a converted"),
        (lambda f: (f / "config.json").write_text("[]"), "no config of a converted"),
        (lambda f: (f / "config.json").write_text('{"kind": "x", "format": 1}'), "no converted classifier"),
        (lambda f: change_config(f, heads=5), "no such encoder"),
        (lambda f: change_config(f, max_tokens=4000), "no such encoder"),
        (lambda f: change_config(f, size=3), "no config of a converted"),
        (lambda f: change_config(f, hidden=65), "has the shape"),
        (lambda f: change_config(f, vocab_size=20, padding_id=0), "has the shape"),
        (lambda f: (f / "model.safetensors").write_bytes(b"damaged"), "weights in .* cannot be read"),
        (lambda f: (f / "model.safetensors").unlink(), "weights in .* cannot be read"),
        (lambda f: change_weights(f, lambda p: p.pop("word")), "missing or unknown"),
        (lambda f: change_weights(f, lambda p: p.update(type=np.full_like(p["type"], np.nan))), "not finite"),
        (lambda f: (f / "tokenizer.json").write_text("{}"), "tokenizer in .* cannot be read"),
        (lambda f: (f / "tokenizer.json").unlink(), "tokenizer in .* cannot be read"),
    ],
)
def test_a_damaged_folder(damage, message, tmp_path):
    folder = tmp_path / "bert"
    shutil.copytree(FIXTURES / "bert", folder)
    damage(folder)
    with pytest.raises(BadInput, match=message):
        DetoxifyJaxScorer(folder)


def test_eight_devices_say_the_same(tmp_path):
    """Eight simulated devices, rows over all of them or heads and widths over some, equal the package."""
    with Nursery(tmp_path) as nursery:
        status = nursery.run("tiny_detoxify:on_devices", 8, str(FIXTURES / "roberta"), str(tmp_path))
        assert status == 0, nursery.log.read_text()[-3000:]
    wanted = expit(np.array(json.loads((FIXTURES / "roberta.json").read_text())["logits"]))
    for name in ("all", "tensor"):
        np.testing.assert_allclose(np.load(tmp_path / f"{name}.npy"), wanted, rtol=0, atol=3e-6)
