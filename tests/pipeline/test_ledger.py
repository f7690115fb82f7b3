import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline import ledger
from training.errors import BadInput

TIME = "2030-01-02T03:04:05+00:00"


@pytest.fixture
def written(tmp_path: Path) -> Path:
    path = tmp_path / "ledger.jsonl"
    for index, event in enumerate(["run started", "stage trained", "gate passed", "run done"]):
        ledger.append(path, event, {"stage": "sft", "value": index, "note": "é \n"}, time=TIME)
    return path


def test_events_come_back_in_order_and_chained(written: Path) -> None:
    events = ledger.verify(written)
    assert [event["event"] for event in events] == ["run started", "stage trained", "gate passed", "run done"]
    assert [event["index"] for event in events] == [0, 1, 2, 3]
    assert events[0]["previous"] == ledger.FIRST
    assert [event["previous"] for event in events[1:]] == [event["hash"] for event in events[:-1]]


def test_the_same_events_have_the_same_hashes(tmp_path: Path) -> None:
    first = ledger.append(tmp_path / "a", "x", {"p": 1, "q": [2.5, None]}, time=TIME)
    second = ledger.append(tmp_path / "b", "x", {"q": [2.5, None], "p": 1}, time=TIME)
    assert first["hash"] == second["hash"] == "sha256:e000344aafe5930bc4bc56642f1232a18d96f1a034be76495367f474f02c5fba"


def test_an_empty_ledger_is_valid(tmp_path: Path) -> None:
    (tmp_path / "ledger.jsonl").touch()
    assert ledger.verify(tmp_path / "ledger.jsonl") == []


def _edit(lines: list[str]) -> list[str]:
    return [lines[0], lines[1].replace('"value": 1', '"value": 9'), *lines[2:]]


def _forge(lines: list[str]) -> list[str]:
    event = json.loads(lines[1]) | {"value": 9}
    event["hash"] = ledger.event_hash(event)
    return [lines[0], json.dumps(event) + "\n", *lines[2:]]


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (_edit, "line 2 of the ledger .* was edited"),
        (_forge, "line 3 of the ledger .* does not follow line 2"),
        (lambda lines: lines[1:], "line 1 of the ledger .* does not follow line 0"),
        (lambda lines: [lines[0], *lines[2:]], "line 2 of the ledger .* does not follow"),
        (lambda lines: [lines[0], lines[2], lines[1], lines[3]], "line 2 of the ledger .* does not follow"),
        (lambda lines: [lines[0], lines[0], *lines[1:]], "line 2 of the ledger .* does not follow"),
        (lambda lines: [lines[0], "nonsense\n", *lines[1:]], "line 2 of the ledger .* is not JSON"),
        (lambda lines: [lines[0], "[]\n"], "line 2 of the ledger .* is not an event"),
        (lambda lines: [lines[0], '{"index": 1}\n'], "has no event, time, previous, hash"),
        (lambda lines: [lines[0].replace('"value": 0', '"value": NaN'), *lines[1:]], "line 1 .* was edited"),
    ],
)
def test_damage_is_found_and_nothing_is_appended_to_it(written: Path, damage, message: str) -> None:
    broken = "".join(damage(written.read_text(encoding="utf-8").splitlines(keepends=True)))
    written.write_text(broken, encoding="utf-8")
    with pytest.raises(BadInput, match=message):
        ledger.verify(written)
    with pytest.raises(BadInput, match=message):
        ledger.append(written, "more", {})
    assert written.read_text(encoding="utf-8") == broken


@settings(deadline=None)
@given(data=st.data())
def test_any_changed_byte_is_found(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    path = tmp_path_factory.mktemp("ledger") / "ledger.jsonl"
    for number in range(2):
        ledger.append(path, "event", {"value": number, "inner": {"a": "b"}}, time=TIME)
    content = bytearray(path.read_bytes())
    spot = data.draw(st.integers(0, len(content) - 1))
    new = data.draw(st.integers(33, 126).filter(lambda byte: byte != content[spot]))
    content[spot] = new
    path.write_bytes(content)
    if spot == len(content) - 1:
        assert len(ledger.verify(path)) == 1, "the second line has no end, and counts no more than if it were not there"
        return
    with pytest.raises(BadInput):
        ledger.verify(path)


@pytest.mark.parametrize("cut", [1, 20, -1])
def test_a_line_that_a_kill_cut_off_is_dropped_by_the_next_event(written: Path, cut: int, capsys) -> None:
    whole = written.read_bytes()
    last = whole.splitlines(keepends=True)[-1]
    written.write_bytes(whole[: len(whole) - len(last)] + last[:cut])
    kept = ledger.verify(written)
    assert len(kept) == 3 and written.read_bytes().endswith(last[:cut]), "reading changes nothing"
    event = ledger.append(written, "run done", {"stage": "sft", "value": 3, "note": "é \n"}, time=TIME)
    assert event["previous"] == kept[-1]["hash"] and written.read_bytes() == whole
    assert "dropped" in capsys.readouterr().err
    ledger.append(written, "more", {})
    assert capsys.readouterr().err == "" and len(ledger.verify(written)) == 5


def test_a_ledger_of_one_line_cut_off_is_an_empty_one(tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    path.write_text('{"index": 0, "ev')
    assert ledger.verify(path) == []
    ledger.append(path, "first", {})
    assert [event["event"] for event in ledger.verify(path)] == ["first"]


def test_lines_missing_at_the_end_are_found_with_the_head(written: Path) -> None:
    head = ledger.verify(written)[-1]["hash"]
    lines = written.read_text(encoding="utf-8").splitlines(keepends=True)
    ledger.append(written, "later", {})
    with pytest.raises(BadInput, match="goes on after it"):
        ledger.verify(written, head=head)
    written.write_text("".join(lines[:-1]), encoding="utf-8")
    assert len(ledger.verify(written)) == 3
    with pytest.raises(BadInput, match="missing at its end"):
        ledger.verify(written, head=head)


def test_details_must_be_json_and_not_the_ledgers_own(tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    with pytest.raises(BadInput, match="cannot carry hash, index"):
        ledger.append(path, "x", {"hash": "1", "index": 4})
    for bad in (float("nan"), object(), {1, 2}):
        with pytest.raises(BadInput, match="not plain JSON"):
            ledger.append(path, "x", {"value": bad})
    assert not path.exists() or path.read_bytes() == b""


def test_unreadable_and_unwritable_ledgers(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="cannot read the ledger .*: No such file"):
        ledger.verify(tmp_path / "none.jsonl")
    with pytest.raises(BadInput, match="cannot write the ledger .*: Is a directory"):
        ledger.append(tmp_path, "x", {})
