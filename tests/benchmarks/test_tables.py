"""The tables of the documents are those that the recorded measurements give."""

from pathlib import Path

import pytest

from benchmarks import coverage, page, quickstart
from benchmarks.parts import alignment_tables, result

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "results.md"


@pytest.mark.parametrize(
    ("name", "tables"), [("quickstart", quickstart.tables), ("alignment", alignment_tables.tables)]
)
def test_tables_show_the_last_measurement(name, tables):
    if not (result.RESULTS / f"{name}.json").exists():
        assert f"<!-- {name} -->\nNot measured yet.\n" in DOCUMENT.read_text(encoding="utf-8")
        return
    for place, text in tables(result.read(name)).items():
        assert f"<!-- {place} -->\n{text}\n<!-- end of {place} -->" in DOCUMENT.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("name", "document", "tables"), [("page", "report.md", page.tables), ("coverage", "gates.md", coverage.tables)]
)
def test_tables_of_other_documents_too(name, document, tables):
    text = DOCUMENT.with_name(document).read_text(encoding="utf-8")
    for place, table in tables(result.read(name)).items():
        assert f"<!-- {place} -->\n{table}\n<!-- end of {place} -->" in text


def test_a_table_goes_between_its_marks(tmp_path):
    document = tmp_path / "results.md"
    document.write_text("before\n<!-- a -->\nold\n<!-- end of a -->\nafter\n")
    result.fill(document, "a", result.table(["x"], [["1"]]))
    assert document.read_text() == "before\n<!-- a -->\n| x |\n| --- |\n| 1 |\n<!-- end of a -->\nafter\n"
    with pytest.raises(ValueError, match="has no place for b"):
        result.fill(document, "b", "")
