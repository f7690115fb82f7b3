"""The tables of the documents are those that the recorded measurements give."""

import functools
import re
from pathlib import Path

import pytest

from benchmarks import (
    coverage,
    decoder,
    detoxify,
    distill,
    gate,
    image_tokenizer,
    language_model,
    long_context,
    page,
    products,
    quantize,
    quickstart,
    sampler,
    scorers,
    text_only,
    tpu,
)
from benchmarks.parts import alignment_tables, result

DOCUMENTS = Path(__file__).resolve().parents[2] / "docs"
# Of each benchmark: its document, and what makes its tables out of its figures.
TABLES = {
    "alignment": ("results.md", alignment_tables.tables),
    "coverage": ("gates.md", coverage.tables),
    "decoder": ("published_models.md", decoder.tables),
    "gate": ("gates.md", lambda found: {"speed": gate.table(found)}),
    "long_context": ("published_models.md", long_context.tables),
    "page": ("report.md", page.tables),
    "products": ("scorers.md", lambda found: {"products": products.table(found)}),
    "quantize": ("commands.md", lambda found: {"quantize": quantize.table(found)}),
    "quickstart": ("results.md", quickstart.tables),
    "sampler": ("published_models.md", lambda found: {
        "sampler": sampler.sampler_table(found["beside"]), "room": sampler.room_table(found["room"])
    }),
    "text_only": ("results.md", text_only.tables),
}  # fmt: skip
# Benchmarks that write theirs into the documents themselves.
DRAWN = {module.__name__.rpartition(".")[2]: module for module in (
    detoxify, distill, image_tokenizer, language_model, scorers, tpu
)}  # fmt: skip


@functools.cache
def drawn(name):
    """Document, place and text of each of a benchmark's tables; None if it was not measured."""
    if not (result.RESULTS / f"{name}.json").exists():
        return None
    if name in TABLES:
        document, draw = TABLES[name]
        return [(document, place, text) for place, text in draw(result.read(name)).items()]
    found = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(result, "fill", lambda path, place, text: found.append((path.name, place, text)))
        DRAWN[name].draw()
    return found


@pytest.mark.parametrize("name", sorted([*TABLES, *DRAWN]))
def test_tables_show_the_last_measurement(name):
    if drawn(name) is None:
        pytest.skip("not measured yet")
    for document, place, text in drawn(name):
        shown = (DOCUMENTS / document).read_text(encoding="utf-8")
        assert f"<!-- {place} -->\n{text}\n<!-- end of {place} -->" in shown


def test_every_table_of_the_documents_is_one_of_these_or_says_that_it_was_not_measured():
    known = {(document, place) for name in (*TABLES, *DRAWN) for document, place, _ in drawn(name) or ()}
    known.add(("gates.md", "refusals"))  # counted from packaged replies: tests/safety/test_refusal_error.py
    for path in DOCUMENTS.glob("*.md"):
        for place, text in re.findall(r"<!-- (\w+) -->\n(.*?)<!-- end of \1 -->", path.read_text("utf-8"), re.DOTALL):
            assert (path.name, place) in known or text == "Not measured yet.\n", f"{place} of {path.name}"


def test_every_fixture_of_the_decoder_was_compared():
    assert list(result.read("decoder")["folders"]) == [folder.name for folder in decoder.folders()]


def test_a_table_goes_between_its_marks(tmp_path):
    document = tmp_path / "results.md"
    document.write_text("before\n<!-- a -->\nold\n<!-- end of a -->\nafter\n")
    result.fill(document, "a", result.table(["x"], [["1"]]))
    assert document.read_text() == "before\n<!-- a -->\n| x |\n| --- |\n| 1 |\n<!-- end of a -->\nafter\n"
    with pytest.raises(ValueError, match="has no place for b"):
        result.fill(document, "b", "")
