import json
from dataclasses import replace

import jax
import numpy as np
import pytest
import yaml
from PIL import Image
from tiny_world import one_layer, reply, turn

import base_model.distill
from base_model import checkpoint, presets, teacher_cache
from base_model.teacher_cache import learned
from pipeline.cli import main
from pipeline.commands.distill import student_of
from training.errors import BadInput


@pytest.fixture
def folder(tmp_path, tiny_model, picture):
    """A teacher, rows of both kinds with pictures, and a student that takes fewer soft tokens of each."""
    teacher = one_layer(tiny_model)
    checkpoint.save(teacher, tmp_path / "teacher")
    (tmp_path / "images").mkdir()
    Image.fromarray(picture(1)).save(tmp_path / "images" / "1.png")
    asked = turn("what colour", ["images/1.png"])
    rows = [{"messages": [asked, reply("red")]}, {"prompt": [turn("hello")], "completion": "fine thanks"}]
    (tmp_path / "sft.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "pretrain.jsonl").write_text(json.dumps({"messages": [asked, reply("red")]}) + "\n")
    shape = json.loads(teacher.config.to_json()) | {"embed_dim": 16}
    shape["vision"]["grid"] = 1
    del shape["vocab_size"]
    (tmp_path / "student.yaml").write_text(yaml.safe_dump(shape))
    return tmp_path


@pytest.fixture
def read(monkeypatch):
    """What teacher and student are given to read, in the place of reading and training."""
    seen = {}
    monkeypatch.setattr(teacher_cache, "write_cache", lambda place, model, rows, _: seen.update(teacher=(model, rows)))
    monkeypatch.setattr(teacher_cache, "TeacherCache", lambda place, rows: place)
    monkeypatch.setattr(base_model.distill, "distill", lambda *given: seen.update(distill=given))
    return seen


def test_each_reads_the_rows_as_it_sees_pictures_and_learns_the_same_tokens(folder, read, in_process, capsys):
    command = ["base", "distill", f"teacher={folder}/teacher", f"student={folder}/student.yaml", "rows=sft",
               f"data={folder}/sft.jsonl", f"held_out={folder}/sft.jsonl", f"out={folder}/run",
               "distill.top_k=4", "distill.max_length=48"]  # fmt: skip
    assert main(command) == 0, capsys.readouterr().err
    config, student, examples, cache, held_out = read["distill"]
    teacher, theirs = read["teacher"]
    assert (config.top_k, config.output_dir, cache) == (4, f"{folder}/run", folder / "run" / "teacher")
    assert student.config.embed_dim == 16 and student.config.vocab_size == teacher.config.vocab_size
    assert [len(one) - len(other) for one, other in zip(theirs, examples, strict=True)] == [3, 0]  # 2 x 2 cells, 1 x 1
    for one, other in zip(theirs, examples, strict=True):
        np.testing.assert_array_equal(one.tokens[learned(one)], other.tokens[learned(other)])
    assert student.tokenizer.decode(examples[1].tokens[learned(examples[1])].tolist()).startswith("fine thanks")
    assert len(held_out) == 2


def test_pretraining_rows_are_learned_whole(folder, read, in_process, capsys):
    command = ["base", "distill", f"teacher={folder}/teacher", f"student={folder}/teacher", "held_out=",
               f"data={folder}/pretrain.jsonl", f"out={folder}/run", f"cache={folder}/cache"]  # fmt: skip
    assert main(command) == 0, capsys.readouterr().err
    _, student, (example,), cache, held_out = read["distill"]
    assert cache == folder / "cache" and held_out == [] and read["teacher"][1] == [example]
    assert "what colour" in student.tokenizer.decode(example.tokens[learned(example)].tolist())
    assert main([*command, "distill.max_images=1", f"student={folder}/none"]) == 2
    assert "none is not a checkpoint" in capsys.readouterr().err


@pytest.mark.parametrize("kind", ["sft", "pretraining"])
def test_a_bad_row_says_how_to_leave_it_out(folder, read, in_process, capsys, kind):
    rows = folder / "bad.jsonl"
    rows.write_text("{}\n" + (folder / "pretrain.jsonl").read_text())
    command = ["base", "distill", f"teacher={folder}/teacher", f"student={folder}/teacher", "held_out=",
               f"rows={kind}", f"data={rows}", f"out={folder}/run"]  # fmt: skip
    assert main(command) == 2
    assert "bad.jsonl:1: a row needs" in (said := capsys.readouterr().err) and "on_bad_row=skip" in said
    assert main([*command, "distill.on_bad_row=skip"]) == 0 and len(read["distill"][2]) == 1
    assert "1 of 2 rows left out" in capsys.readouterr().out


def test_a_student_is_a_size_with_the_tokenizer_of_its_teacher(folder, tiny_model):
    made = []
    # Its parameters are not drawn, only their shapes.
    jax.eval_shape(lambda: made.append(student_of("tiny-quarter", tiny_model, seed=0)) or made[0].params)
    student = made[0]
    assert student.config == replace(presets.tiny_quarter(), vocab_size=tiny_model.config.vocab_size)
    assert student.fingerprint == tiny_model.fingerprint
    (folder / "bad.yaml").write_text("embed_dim: 16\n")
    with pytest.raises(BadInput, match="does not describe a model that this version knows"):
        student_of(str(folder / "bad.yaml"), tiny_model, seed=0)
