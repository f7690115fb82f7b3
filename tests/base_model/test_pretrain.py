from dataclasses import replace
from functools import partial

import jax
import numpy as np
import pytest
from PIL import Image
from tiny_world import Killed, killed_at, one_layer

from base_model import checkpoint, pretrain, vision_warmup
from base_model.drawing_tokenizer import DrawingTokenizer
from base_model.interleave import digest
from base_model.pretrain import HeldOutFigures, augment, pretraining_examples, train_tokenizer
from base_model.pretrain_config import PretrainConfig
from base_model.vision_warmup import picture_answers, warm_up
from training.checkpoint import latest_step
from training.dataset import read_rows
from training.errors import BadInput
from training.metrics import read_metrics

CONFIG = PretrainConfig(
    max_steps=3,
    max_length=32,
    per_device_train_batch_size=2,
    gradient_accumulation_steps=2,
    vision_warmup_steps=2,
    save_steps=2,
    eval_steps=0,
)


def talk(text, reply, source="chitchat"):
    return {
        "messages": [{"role": "user", "content": text}, {"role": "assistant", "content": reply}],
        "source": source,
    }


def about(image, reply, question="what colour"):
    content = [{"type": "image", "image": image}, {"type": "text", "text": question}]
    return talk(content, reply, "easy-vqa")


@pytest.fixture
def data(write_rows, tmp_path, picture):
    """A handful of rows with pictures in files, and two to hold out."""
    (tmp_path / "images").mkdir()
    for number in range(4):
        Image.fromarray(picture(number)).save(tmp_path / "images" / f"{number}.png")
    rows = [about(f"images/{n % 4}.png", ("red", "blue", "yes")[n % 3]) for n in range(9)]
    rows += [talk("hello", "how are you"), talk("where is the cat", "the cat sat on a mat today" * 3)]
    held_out = [about("images/0.png", "red"), talk("hello", "fine")]
    return write_rows(rows), write_rows(held_out, "held_out.jsonl")


@pytest.fixture
def few_answers(monkeypatch):
    """Pictures' answers count even when they are rare."""
    monkeypatch.setattr(vision_warmup, "picture_answers", partial(picture_answers, at_least=1))


def run(config, model, data, folder):
    config = replace(config, output_dir=str(folder))
    return pretrain.pretrain(config, model.config, model.tokenizer, data=data[0], held_out_data=data[1])


def equal(one, other):
    return jax.tree.all(jax.tree.map(lambda x, y: bool((np.asarray(x) == np.asarray(y)).all()), one, other))


def test_from_rows_to_a_checkpoint_and_on_after_a_stop(data, tiny_model, tmp_path, few_answers, monkeypatch):
    tiny_model = one_layer(tiny_model)
    trained = run(CONFIG, tiny_model, data, tmp_path / "whole")
    loaded = checkpoint.load(tmp_path / "whole" / "checkpoint")
    assert loaded.config == tiny_model.config and loaded.fingerprint == tiny_model.fingerprint
    for saved, given in zip(jax.tree.leaves(loaded.params), jax.tree.leaves(trained.params), strict=True):
        np.testing.assert_allclose(saved, given, rtol=1e-2, atol=1e-6)  # bfloat16
    lines = read_metrics(tmp_path / "whole" / "metrics.jsonl")
    assert [line["step"] for line in lines] == [1, 2, 3]
    assert set(lines[-1]) >= {"loss", "grad_norm", "eval_loss", "eval_bits_per_byte", "eval_vqa_exact_match"}

    # Stopped before the first state was saved, and then once more after it: as if nothing had happened.
    for call in (1, 3):
        with pytest.raises(Killed), monkeypatch.context() as patched:
            patched.setattr(pretrain, "augment", killed_at(call, augment))
            run(CONFIG, tiny_model, data, tmp_path / "stopped")
        assert latest_step(tmp_path / "stopped" / "state") == (2 if call == 3 else None)
    resumed = run(CONFIG, tiny_model, data, tmp_path / "stopped")
    assert equal(resumed.params, trained.params)
    assert (tmp_path / "stopped" / "metrics.jsonl").read_bytes() == (tmp_path / "whole" / "metrics.jsonl").read_bytes()

    # A finished run is not trained again, and not on other data either.
    before = (tmp_path / "whole" / "checkpoint" / "model.safetensors").read_bytes()
    assert equal(run(CONFIG, tiny_model, data, tmp_path / "whole").params, trained.params)
    assert (tmp_path / "whole" / "checkpoint" / "model.safetensors").read_bytes() == before
    data[0].write_text(data[0].read_text().replace("how are you", "how is this"))
    with pytest.raises(BadInput, match="other options, data or parent"):
        run(CONFIG, tiny_model, data, tmp_path / "whole")


def test_a_trained_model_goes_on_with_pictures_to_draw(data, tiny_model, image_tokenizer, tmp_path, few_answers):
    start = one_layer(tiny_model)
    tokenizer = DrawingTokenizer(start.tokenizer, image_tokenizer)
    config = replace(start.config, vocab_size=tokenizer.vocab_size)
    options = replace(CONFIG, max_steps=1, learning_rate=1e-12, weight_decay=0.0, output_dir=str(tmp_path / "larger"))
    go_on = partial(pretrain.pretrain, model_config=config, tokenizer=tokenizer, data=data[0], held_out_data=data[1])
    trained = go_on(options, start=start)
    old = start.config.vocab_size
    assert len(trained.params["embedding"]) == old + image_tokenizer.config.codes
    np.testing.assert_allclose(trained.params["embedding"][:old], start.params["embedding"], atol=1e-6)
    rest = ({**model.params, "embedding": 0.0} for model in (trained, start))
    same = jax.tree.map(lambda x, y: bool(np.abs(x - y).max() < 1e-6), *rest)
    assert jax.tree.all(same), "its picture encoder is not warmed up again either"
    other = replace(start, params=jax.tree.map(lambda x: x + 1, start.params))
    with pytest.raises(BadInput, match="other options, data or parent"):
        go_on(options, start=other)


def test_long_text_is_cut_into_pieces_and_pictures_are_not(data, tiny_model):
    rows = read_rows(data[0])
    examples = pretraining_examples(rows, tiny_model.tokenizer, tiny_model.config, max_length=32)
    assert max(map(len, examples)) == 32 and len(examples) > len(rows)
    assert sum(len(example.media.images) for example in examples) == 9
    whole = pretraining_examples(rows[-1:], tiny_model.tokenizer, tiny_model.config, max_length=1000)[0]
    pieces = pretraining_examples(rows[-1:], tiny_model.tokenizer, tiny_model.config, max_length=32)
    np.testing.assert_array_equal(np.concatenate([piece.tokens for piece in pieces]), whole.tokens)
    np.testing.assert_array_equal(np.concatenate([piece.learn for piece in pieces]), whole.learn)
    beside = replace(rows[0], values=talk("what is said here", "yes") | {"videos": ["a.mp4"]})
    with pytest.raises(BadInput, match="rows.jsonl:1: a row has `videos` beside its messages"):
        pretraining_examples([beside], tiny_model.tokenizer, tiny_model.config, max_length=32)
    with pytest.raises(BadInput, match=r"rows.jsonl:1: a row of \d+ tokens does not fit in max_length \(12\)"):
        pretraining_examples(rows, tiny_model.tokenizer, tiny_model.config, max_length=12)


def test_bad_rows_stop_or_are_left_out(data, tiny_model, write_rows, capsys):
    rows = [*read_rows(data[1]), *read_rows(write_rows([{"source": "chitchat"}, {"source": "easy-vqa"}], "bad.jsonl"))]
    options = {"max_length": 32, "on_bad_row": "skip"}
    for read in (pretraining_examples, HeldOutFigures):
        with pytest.raises(BadInput, match=r"bad.jsonl:1: a row needs .* \(on_bad_row=skip leaves such rows out\)"):
            read(rows, tiny_model.tokenizer, tiny_model.config, max_length=32, on_bad_row="stop")
    usable = pretraining_examples(rows[:-2], tiny_model.tokenizer, tiny_model.config, max_length=32)
    examples = pretraining_examples(rows, tiny_model.tokenizer, tiny_model.config, **options)
    assert digest(examples) == digest(usable) and "2 of 4 rows left out" in capsys.readouterr().out
    HeldOutFigures(rows, tiny_model.tokenizer, tiny_model.config, **options)
    with pytest.raises(BadInput, match="on_bad_row=skip"):
        train_tokenizer(write_rows([{}]), vocab_size=296, on_bad_row="stop")


def test_the_warm_up_changes_the_picture_encoder_alone(data, tiny_model, structure, few_answers):
    rows = read_rows(data[0])
    pictures, labels = picture_answers(rows, at_least=1)
    assert len(picture_answers(rows)[0]) == 0
    assert len(pictures) == len(labels) == 6 and set(labels) == {0, 1}  # yes says nothing about a picture
    warm = warm_up(structure, tiny_model.params, rows, tiny_model.config, steps=2, seed=0)
    assert not equal(warm["vision"], tiny_model.params["vision"])
    others = [{name: tree for name, tree in params.items() if name != "vision"} for params in (warm, tiny_model.params)]
    assert equal(*others)
    again = warm_up(structure, tiny_model.params, rows, tiny_model.config, steps=2, seed=0)
    assert equal(warm, again)


def test_no_warm_up_without_steps_pictures_or_eyes(data, tiny_model, structure):
    rows = read_rows(data[0])
    blind = replace(tiny_model.config, vision=None)
    for given, config, steps in [(rows, tiny_model.config, 0), (rows[-2:], tiny_model.config, 2), (rows, blind, 2)]:
        assert warm_up(structure, tiny_model.params, given, config, steps=steps, seed=0) is tiny_model.params


def test_answers_given_as_parts_do_not_disturb_the_warm_up(write_rows, picture):
    rows = read_rows(write_rows([about("x.png", [{"type": "text", "text": "red"}])]))
    assert len(picture_answers(rows, at_least=1)[0]) == 0


def test_augmentation_shifts_and_mirrors(picture):
    images = np.stack([[picture(0), picture(1)], [picture(2), picture(3)]])
    changed = augment(images, np.random.default_rng(0))
    assert changed.shape == images.shape and changed.dtype == np.uint8 and (changed != images).any()
    np.testing.assert_array_equal(np.sort(changed.reshape(4, -1)), np.sort(images.reshape(4, -1)))
    np.testing.assert_array_equal(changed, augment(images, np.random.default_rng(0)))
    assert augment(images[:, :0], np.random.default_rng(0)).shape == (2, 0, 16, 16, 3)


def test_held_out_figures_count_the_bytes_of_what_was_said(data, tiny_model, structure):
    figures = HeldOutFigures(read_rows(data[1]), tiny_model.tokenizer, tiny_model.config, max_length=32)
    values = figures(structure, tiny_model.params)
    tokens = len(tiny_model.tokenizer.encode("hello")) + len(tiny_model.tokenizer.encode("fine")) + 5
    expected = values["loss"] * tokens / np.log(2) / len("hellofine")
    assert values["bits_per_byte"] == pytest.approx(expected, rel=1e-5)
    assert values["vqa_exact_match"] in (0, 1)


def test_a_tokenizer_is_trained_on_what_is_said(data):
    tokenizer = train_tokenizer(data[0], vocab_size=296)
    assert tokenizer.vocab_size == 296
    with pytest.raises(BadInput, match="could not be trained"):
        train_tokenizer(data[0], vocab_size=5000)
