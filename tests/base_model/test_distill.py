"""Distillation of a model of one layer: the teacher's cache, the loss, resuming, and what does not fit together."""

import json
from dataclasses import replace
from functools import partial

import jax
import numpy as np
import pytest
from flax import nnx
from safetensors.numpy import load_file
from tiny_world import Killed, killed_at, one_layer

import base_model.distill
from base_model import checkpoint, teacher_cache
from base_model.batch import pack
from base_model.checkpoint import LanguageModel, build, split, structure_of
from base_model.distill import Taught, distill, distillation, require_same_tokenizer, require_same_tokens, targets_of
from base_model.distill_config import DistillConfig
from base_model.likelihood import held_out
from base_model.media import count, room
from base_model.teacher_cache import TeacherCache, learned, write_cache
from base_model.tokenizer import Tokenizer
from training.checkpoint import content_digest, latest_step
from training.errors import BadInput
from training.metrics import read_metrics
from training.packing import PackedStream

CONFIG = DistillConfig(
    max_length=64, max_images=3, top_k=8, per_device_train_batch_size=2, max_steps=6, save_steps=4,
    learning_rate=3e-2, matmul_dtype="float32", teacher_weight=0.75, temperature=2.0,
)  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def small_files():
    """Several files of a cache for few examples."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(teacher_cache, "EXAMPLES_A_FILE", 2)
        yield


@pytest.fixture(scope="module")
def teacher(tiny_model):
    """One that is sure of some tokens."""
    model = one_layer(tiny_model)
    return model.with_params({**model.params, "embedding": 4 * model.params["embedding"]})


@pytest.fixture(scope="module")
def student(teacher):
    """Half as wide, with parameters of its own."""
    config = replace(teacher.config, embed_dim=16)
    params = jax.jit(lambda: split(build(config, teacher.tokenizer, seed=3))[1])()
    return LanguageModel(config=config, tokenizer=teacher.tokenizer, params=params, statistics={})


@pytest.fixture(scope="module")
def examples(make_example):
    """Ragged, with no picture, one and two."""
    return [
        make_example("hello", "fine thanks"),
        make_example("what colour is this", "red", pictures=[1]),
        make_example("circle or square", "circle yes", pictures=[2, 3]),
        make_example("where", "on a mat today"),
        make_example("no?", "yes"),
    ]


@pytest.fixture(scope="module")
def cache(teacher, examples, tmp_path_factory):
    folder = tmp_path_factory.mktemp("teacher")
    write_cache(folder, teacher, examples, CONFIG)
    return folder


@pytest.fixture(scope="module")
def batch(examples, cache):
    """All examples, each in a row of its own, with what the teacher says."""
    rows = [[number] for number in range(len(examples))]
    packed = pack([[example] for example in examples], 64, room([[e.media] for e in examples], slots=CONFIG.slots))
    return Taught(packed, targets_of(rows, examples, TeacherCache(cache, examples), CONFIG))


def logits_of(model, examples):
    """The model's own logits before each learned token of each example."""
    structure = structure_of(model.config, model.tokenizer)

    @jax.jit
    def run(params, batch):
        decoder = nnx.merge(structure, params)
        return decoder.logits(decoder(batch.tokens, batch.positions, batch.segments, batch.media)[0])

    logits = np.asarray(run(model.params, pack([[example] for example in examples], 64)), np.float64)
    return [logits[row, learned(example) - 1] for row, example in enumerate(examples)]


def log_softmax(logits):
    return logits - np.log(np.exp(logits).sum(-1, keepdims=True))


def test_the_cache_is_what_the_teacher_says_of_each_example_alone(teacher, examples, cache):
    found = TeacherCache(cache, examples)
    for number, logits in enumerate(logits_of(teacher, examples)):
        ids, log_probs = found.of(number)
        assert (ids.dtype, log_probs.dtype) == (np.int32, np.float16) and len(ids) == len(learned(examples[number]))
        expected = log_softmax(logits / CONFIG.temperature)
        np.testing.assert_array_equal(ids, np.argsort(-logits)[:, : CONFIG.top_k])
        kept = np.take_along_axis(expected, ids, -1)
        np.testing.assert_allclose(log_probs[:, :-1], kept, rtol=2e-3)
        np.testing.assert_allclose(log_probs[:, -1], np.log1p(-np.exp(kept).sum(-1)), rtol=2e-3)


def test_an_interrupted_pass_goes_on_with_the_next_file(teacher, examples, cache, tmp_path, monkeypatch):
    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(teacher_cache, "write_whole", killed_at(2, teacher_cache.write_whole))
        write_cache(tmp_path, teacher, examples, CONFIG)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["000000.safetensors", "teacher.json"]
    with pytest.raises(BadInput, match=r"000001.safetensors is missing or damaged"):
        TeacherCache(tmp_path, examples)
    first = (tmp_path / "000000.safetensors").stat().st_mtime_ns
    write_cache(tmp_path, teacher, examples, CONFIG)
    assert (tmp_path / "000000.safetensors").stat().st_mtime_ns == first
    for path in cache.iterdir():
        assert (tmp_path / path.name).read_bytes() == path.read_bytes()
    monkeypatch.setattr(teacher_cache, "pack", killed_at(1, teacher_cache.pack))
    write_cache(tmp_path, teacher, examples, CONFIG)  # whole: nothing is read again


def test_a_cache_of_something_else_is_refused(teacher, student, examples, cache):
    for what, arguments in {
        "temperature": (teacher, examples, replace(CONFIG, temperature=1.0)),
        "top_k": (teacher, examples, replace(CONFIG, top_k=4)),
        "rows": (teacher, examples[::-1], CONFIG),
        "teacher": (student, examples, CONFIG),
    }.items():
        with pytest.raises(BadInput, match=rf"not what this teacher says .* \(other: {what}\); delete that folder"):
            write_cache(cache, *arguments)
    write_cache(cache, teacher, examples, replace(CONFIG, learning_rate=1.0, teacher_weight=0.1))
    with pytest.raises(BadInput, match="top_k is 341, and the teacher's vocabulary has 340 tokens"):
        write_cache(cache, teacher, examples, replace(CONFIG, top_k=341))


def test_a_damaged_cache_is_refused(teacher, examples, cache, tmp_path):
    for path in cache.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    whole = (tmp_path / "000001.safetensors").read_bytes()
    flipped = whole[:-1] + bytes([whole[-1] ^ 1])
    for content, said in ((flipped, "changed or damaged"), (whole[:40], "missing or damaged")):
        (tmp_path / "000001.safetensors").write_bytes(content)
        with pytest.raises(BadInput, match=rf"000001.safetensors (was|is) {said}.*delete it"):
            TeacherCache(tmp_path, examples)
    for content in ("[]", "{", '{"format": NaN}'):
        (tmp_path / "teacher.json").write_text(content)
        with pytest.raises(BadInput, match=r"teacher.json .*delete that folder"):
            write_cache(tmp_path, teacher, examples, CONFIG)


@pytest.fixture(scope="module")
def loss(student):
    """The loss of a batch and its gradient."""
    structure = structure_of(student.config, student.tokenizer)
    loss = partial(distillation, structure, teacher_weight=0.75, temperature=2.0)

    def mean(params, batch):
        totals = loss(params, batch)
        return totals["loss"][0], totals

    return jax.jit(jax.value_and_grad(mean, has_aux=True))


def test_the_loss_equals_a_loop_over_tokens(student, teacher, examples, batch, loss):
    (total, totals), gradient = loss(student.params, batch)
    kl = nll = 0.0
    for example, theirs, own in zip(examples, logits_of(teacher, examples), logits_of(student, examples), strict=True):
        for target, t, s in zip(example.tokens[learned(example)], theirs, own, strict=True):
            p, q = (np.exp(log_softmax(logits / 2.0)) for logits in (t, s))
            kept = np.argsort(-t)[: CONFIG.top_k]
            p, q = (np.append(x[kept], 1 - x[kept].sum()) for x in (p, q))
            kl += (p * np.log(p / q)).sum()
            nll -= log_softmax(s)[target]
    count = sum(len(learned(example)) for example in examples)
    assert {name: float(value[1]) for name, value in totals.items()} == dict.fromkeys(totals, count)
    np.testing.assert_allclose(totals["kl"][0], kl, rtol=2e-3)
    np.testing.assert_allclose(totals["cross_entropy"][0], nll, rtol=1e-4)
    np.testing.assert_allclose(total, 0.75 * 4 * totals["kl"][0] + 0.25 * totals["cross_entropy"][0], rtol=1e-5)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))


def test_masked_equals_sliced(student, batch, loss):
    (_, whole), gradient = loss(student.params, batch)
    keep = np.arange(len(batch.rows.tokens)) % 2 == 0
    masked = batch._replace(rows=batch.rows._replace(learn=batch.rows.learn & keep[:, None]))
    # What the teacher says where nothing is learned may be anything.
    wild = jax.tree.map(lambda x: np.where(masked.rows.learn[..., None], x, np.full_like(x, 7)), batch.targets)
    halves = [loss(student.params, part) for part in (masked, masked._replace(targets=wild))]
    other = batch._replace(rows=batch.rows._replace(learn=batch.rows.learn & ~keep[:, None]))
    (_, rest), rest_gradient = loss(student.params, other)
    for (_, totals), part in halves:
        for name in totals:
            np.testing.assert_allclose(np.add(totals[name], rest[name]), whole[name], rtol=1e-5)
        jax.tree.map(lambda a, b, c: np.testing.assert_allclose(a + b, c, atol=1e-4), part, rest_gradient, gradient)


def test_packed_rows_are_taught_as_single_ones(student, examples, cache, batch, loss):
    sizes = [(len(example), *count([example.media])) for example in examples]
    stream = PackedStream(sizes, (64, *CONFIG.slots), seed=0)
    packed = stream.rows(0, stream.rows_per_epoch)
    assert len(packed) < len(examples)
    packed += [[]] * (len(examples) - len(packed))  # one program for both
    rows = pack([[examples[i] for i in row] for row in packed], 64, room([[e.media] for e in examples], slots=(3, 2)))
    together = Taught(rows, targets_of(packed, examples, TeacherCache(cache, examples), CONFIG))
    for name, value in loss(student.params, together)[0][1].items():
        np.testing.assert_allclose(value, loss(student.params, batch)[0][1][name], rtol=1e-4, err_msg=name)


@pytest.fixture(scope="module")
def trained(student, examples, cache, tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    config = replace(CONFIG, output_dir=str(folder))
    return folder, distill(config, student, examples, TeacherCache(cache, examples), examples)


def test_the_student_comes_nearer_to_the_teacher(trained, student, examples):
    folder, model = trained
    lines = read_metrics(folder / "metrics.jsonl")
    assert [line["step"] for line in lines] == list(range(1, 7))
    assert lines[-1]["kl"] < 0.75 * lines[0]["kl"] and lines[-1]["cross_entropy"] < 0.9 * lines[0]["cross_entropy"]
    structure = structure_of(student.config, student.tokenizer)
    assert lines[-1]["eval_loss"] == held_out(structure, model.params, examples).loss
    loaded = checkpoint.load(folder / "checkpoint")
    assert content_digest(loaded.params) == content_digest(model.params) != content_digest(student.params)
    assert loaded.config == student.config and loaded.fingerprint == student.fingerprint


def test_a_killed_run_goes_on_as_if_nothing_had_happened(trained, student, examples, cache, tmp_path, monkeypatch):
    config = replace(CONFIG, output_dir=str(tmp_path))
    run = lambda config=config, cache=cache: distill(  # noqa: E731
        config, student, examples, TeacherCache(cache, examples), examples
    )
    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(base_model.distill.PackedExamples, "batch", killed_at(6, base_model.distill.PackedExamples.batch))
        run()
    assert latest_step(tmp_path / "state") == 4
    assert content_digest(run().params) == content_digest(trained[1].params)
    assert (tmp_path / "metrics.jsonl").read_bytes() == (trained[0] / "metrics.jsonl").read_bytes()
    other = tmp_path / "other"
    other.mkdir()
    for path in cache.iterdir():
        (other / path.name).write_bytes(path.read_bytes())
    described = json.loads((other / "teacher.json").read_text())
    (other / "teacher.json").write_text(json.dumps(described | {"teacher": "another"}))
    for change in ({"config": replace(config, teacher_weight=0.5)}, {"cache": other}):
        with pytest.raises(BadInput, match="the state of a run with other options, data or parent"):
            run(**change)


def test_nothing_in_the_cache_runs_code(cache):
    """Tensors and JSON alone."""
    assert {path.suffix for path in cache.iterdir()} == {".safetensors", ".json"}
    assert set(load_file(cache / "000000.safetensors")) == {"ids", "log_probs"}


def test_another_tokenizer_is_refused(teacher):
    other = replace(teacher, tokenizer=Tokenizer.train(["a quite different text to be cut up"] * 9, vocab_size=290))
    with pytest.raises(BadInput, match="the student has another tokenizer or chat template than the teacher"):
        require_same_tokenizer(teacher, other)
    require_same_tokenizer(teacher, replace(teacher))


def test_other_places_for_pictures_are_no_other_tokens(examples):
    pictured, plain = examples[1], examples[0]
    fewer = replace(pictured, tokens=np.delete(pictured.tokens, 3), learn=np.delete(pictured.learn, 3))
    require_same_tokens([plain, pictured], [plain, fewer])
    cut = replace(pictured, tokens=pictured.tokens[:-3], learn=pictured.learn[:-3])
    with pytest.raises(BadInput, match="of example 2 the teacher reads other tokens than the student"):
        require_same_tokens([plain, pictured], [plain, cut])


def test_options_out_of_range_are_refused():
    with pytest.raises(BadInput, match="temperature must be above 0, not 0.0"):
        DistillConfig(temperature=0.0)
    with pytest.raises(BadInput, match="teacher_weight is a share between 0 and 1, not 1.5"):
        DistillConfig(teacher_weight=1.5)
    with pytest.raises(BadInput, match="top_k must be above 0, not 0"):
        DistillConfig(top_k=0)
