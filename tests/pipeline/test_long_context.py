import json

import pytest
from tiny_world import one_layer

from base_model import checkpoint
from pipeline import cli
from pipeline.commands.long_context import LongContext
from pipeline.page.long_context import page, plots, tables
from training.errors import BadInput

FIGURES = {
    "checkpoint": "runs/<b>", "loss": [{"first": 0, "end": 64, "loss": 2.5, "tokens": 630}],
    "retrieval": [
        {"length": length, "tokens": length - 3, "depth": depth, "found": found, "rows": 20, "estimate": found / 20,
         "low": 0.0, "high": 1.0}
        for length, depth, found in ((128, 0.0, 19), (128, 1.0, 20), (512, 0.0, 4), (512, 1.0, 15))
    ],
}  # fmt: skip


def test_the_table_has_every_length_and_depth():
    lines = "\n".join(tables(FIGURES))
    assert "depth 0" in lines and "depth 1" in lines
    assert [float(x) for x in lines.splitlines()[2].split()] == [128, 0.95, 1.0]
    assert [float(x) for x in lines.splitlines()[3].split()] == [512, 0.2, 0.75]
    assert "0-63" in lines and "2.500" in lines


def test_the_page_shows_the_same_and_escapes_what_it_is_given():
    retrieval, loss = plots(FIGURES)
    assert [row[:2] for row in retrieval.table.rows] == [
        ("128 tokens", "0"), ("128 tokens", "1"), ("512 tokens", "0"), ("512 tokens", "1"),
    ]  # fmt: skip
    assert loss.table.rows == (("loss", "32", "2.500"),)
    html = page(FIGURES)
    assert "runs/&lt;b&gt;" in html and "<b>" not in html
    assert html.count("<svg viewBox") == 2 and "0.200" in html


@pytest.mark.parametrize(
    "wrong",
    [{"lengths": ()}, {"lengths": (0,)}, {"depths": (1.1,)}, {"depths": ()}, {"rows": 0}, {"texts": 0}],
    ids=str,
)
def test_options_out_of_range_are_named(wrong):
    with pytest.raises(BadInput, match=next(iter(wrong))):
        LongContext(**wrong)


def test_the_command_measures_and_writes(in_process, tiny_model, write_rows, tmp_path, capsys):
    checkpoint.save(one_layer(tiny_model), tmp_path / "model", weights="safetensors")
    rows = write_rows([{"messages": [{"role": "user", "content": "hello, how are you today"}]}] * 60)
    asked = ["base", "evaluate", "long-context", f"checkpoint={tmp_path / 'model'}", f"out={tmp_path / 'out'}"]
    words = [*asked, "depths=[0,1]", "rows=2", "texts=2"]
    assert cli.main([*words, f"data={rows}", "lengths=[96]"]) == 0
    assert "loss by position" in capsys.readouterr().out
    found = json.loads((tmp_path / "out" / "long_context.json").read_text())
    assert [(one["length"], one["depth"], one["rows"]) for one in found["retrieval"]] == [(96, 0, 2), (96, 1, 2)]
    assert sum(part["tokens"] for part in found["loss"]) == 2 * 95
    assert (tmp_path / "out" / "long_context.html").exists()
    few = write_rows([{"messages": []}], name="few.jsonl")
    assert cli.main([*words, f"data={few}", "lengths=[96]"]) == 2
    assert "fewer than 96 tokens" in capsys.readouterr().err
