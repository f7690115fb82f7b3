import json
import logging

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from training.dataset import batch_indices, convert_rows, epoch_order, read_rows
from training.errors import BadInput


@pytest.fixture
def lines(tmp_path):
    """Writes a data file from text."""

    def write(text, name="rows.jsonl"):
        path = tmp_path / name
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    return write


def test_rows_know_their_place(lines):
    path = lines('{"a": 1}\n\n  \r\n{"a": 2}\r\n{"a": 3}')
    rows = read_rows(path)
    assert [row.values["a"] for row in rows] == [1, 2, 3]
    assert [row.place for row in rows] == [f"{path}:1", f"{path}:4", f"{path}:5"]
    assert {row.folder for row in rows} == {path.parent}


@given(text=st.text(st.characters(exclude_categories=["Cs"])))
@settings(max_examples=100, deadline=None)
def test_any_text_survives(text, tmp_path_factory):
    path = tmp_path_factory.getbasetemp() / "any.jsonl"
    written = json.dumps({"a": text}, ensure_ascii=False) + "\n"
    path.write_bytes((written + written).encode())
    assert [row.values["a"] for row in read_rows(path)] == [text, text]


def test_a_line_separator_inside_a_string_ends_no_line(lines):
    rows = read_rows(lines('{"a": "one\u2028two\x85three"}\n'))
    assert [row.values["a"] for row in rows] == ["one\u2028two\x85three"]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "is not JSON"),
        ('{"a": 1} {"a": 2}', "is not JSON"),
        ("[1, 2]", "is a list, and a row is a JSON object"),
        ("null", "is a NoneType"),
        ('"text"', "is a str"),
        ("9" * 5000, "is not JSON"),
        ("[" * 100_000, "is not JSON"),
    ],
    ids=["cut", "two", "list", "null", "text", "long number", "deep"],
)
def test_a_bad_line_is_named_by_file_and_number(lines, line, message):
    path = lines('{"a": 1}\n\n' + line + "\n")
    with pytest.raises(BadInput, match=message) as error:
        read_rows(path)
    assert str(error.value).startswith(f"{path}:3 ")


@pytest.mark.parametrize(
    ("content", "message"), [("", "has no rows"), ("\n \n", "has no rows"), (b"\xff\xfe{}", "UTF-8")]
)
def test_a_file_without_rows_is_refused(lines, content, message):
    with pytest.raises(BadInput, match=message):
        read_rows(lines(content))


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.parquet"])
def test_a_missing_file_is_named(tmp_path, name):
    with pytest.raises(BadInput, match=f"{name} does not exist"):
        read_rows(tmp_path / name)


def test_a_data_set_without_a_name_is_refused():
    with pytest.raises(BadInput, match="or the name of one on the hub, not ''"):
        read_rows("")


def test_what_is_nowhere_is_told_in_one_error(monkeypatch, caplog, capsys):
    """The hub's client logs each of its tries, for half a minute, in which one line says what is waited for."""

    def unreachable(*_, **__):
        logging.getLogger("huggingface_hub.utils._http").warning("Retrying in 8s [Retry 5/5].")
        raise ConnectionError("no network")

    monkeypatch.setattr(datasets, "load_dataset", unreachable)
    with pytest.raises(BadInput, match="some/name can be read neither from this machine nor from the hub: no network"):
        read_rows("some/name")
    assert not caplog.records
    assert capsys.readouterr().err == "some/name is no file here: asking the hub for a data set of that name\n"


def test_a_folder_and_an_unknown_kind_are_refused(tmp_path):
    (tmp_path / "folder.jsonl").mkdir()
    with pytest.raises(BadInput, match="cannot be read"):
        read_rows(tmp_path / "folder.jsonl")
    with pytest.raises(BadInput, match="neither .jsonl nor .parquet"):
        read_rows(tmp_path / "rows.csv")


def test_parquet_is_read_through_datasets(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    messages = [{"role": "user", "content": "hello"}, {"role": "assistant", "content": "hi"}]
    path = tmp_path / "rows.parquet"
    datasets.Dataset.from_list([{"messages": messages}, {"messages": messages[:1]}]).to_parquet(path)
    rows = read_rows(path)
    assert [row.values["messages"] for row in rows] == [messages, messages[:1]]
    assert rows[1].place == f"{path}:2" and rows[1].folder == tmp_path


def test_media_that_a_parquet_declares_are_left_to_whoever_reads_the_rows(tmp_path, monkeypatch):
    """As data sets of pictures, sounds and clips lie on the hub; one that is damaged is one bad row."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    names = ("image", "audio", "video")
    stored = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    message = pa.struct([("content", pa.list_(pa.struct([(name, stored) for name in names])))])
    held = {"bytes": b"damaged", "path": "a.bin"}
    rows = [{"content": [dict.fromkeys(names, held), dict.fromkeys(names)]}]
    declared = {"content": [{name: {"_type": name.capitalize()} for name in names}]}
    metadata = {"huggingface": json.dumps({"info": {"features": {"messages": [declared]}}})}
    schema = pa.schema([("messages", pa.list_(message))], metadata=metadata)
    pq.write_table(pa.table({"messages": [rows]}, schema=schema), tmp_path / "rows.parquet")
    assert [row.values for row in read_rows(tmp_path / "rows.parquet")] == [{"messages": rows}]


def test_a_damaged_parquet_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    (tmp_path / "rows.parquet").write_bytes(b"PAR1 and no more")
    with pytest.raises(BadInput, match="can be read neither"):
        read_rows(tmp_path / "rows.parquet")


def odd(row):
    if row.values["a"] % 2 == 0:
        raise BadInput(f"{row.values['a']} is even")
    return row.values["a"]


def test_a_bad_row_stops_or_is_counted(lines):
    rows = read_rows(lines("".join(f'{{"a": {a}}}\n' for a in (1, 2, 3, 4))))
    with pytest.raises(BadInput, match=r"rows.jsonl:2: 2 is even \(on_bad_row=skip"):
        convert_rows(rows, odd, on_bad_row="stop")
    with pytest.raises(BadInput, match="rows.jsonl:2: 2 is even$"):  # the caller has no such option
        convert_rows(rows, odd)
    said = []
    assert convert_rows(rows, odd, on_bad_row="skip", warn=said.append) == [1, 3]
    assert len(said) == 1 and said[0].startswith("2 of 4 rows left out") and "rows.jsonl:2: 2 is even" in said[0]
    with pytest.raises(BadInput, match="no usable row is left"):
        convert_rows([rows[1]], odd, on_bad_row="skip", warn=said.append)
    with pytest.raises(BadInput, match="'stop' or 'skip', not 'drop'"):
        convert_rows(rows, odd, on_bad_row="drop")


def test_another_error_than_a_bad_row_is_not_swallowed(lines):
    rows = read_rows(lines('{"b": 1}\n'))
    with pytest.raises(KeyError):
        convert_rows(rows, odd, on_bad_row="skip")


@given(count=st.integers(1, 30), batch_size=st.integers(1, 50), seed=st.integers(0, 5))
@settings(max_examples=60, deadline=None)
def test_batches_are_full_and_together_each_epoch_is_a_permutation(count, batch_size, seed):
    steps = -(-3 * count // batch_size)
    batches = [batch_indices(step, count=count, batch_size=batch_size, seed=seed) for step in range(steps)]
    assert all(len(batch) == batch_size for batch in batches)
    flat = np.concatenate(batches)
    for epoch in range(3):
        own = flat[epoch * count : (epoch + 1) * count]
        np.testing.assert_array_equal(own, epoch_order(count, seed=seed, epoch=epoch))
        assert sorted(own) == list(range(count))


def test_orders_differ_by_epoch_and_by_seed():
    orders = {tuple(epoch_order(20, seed=seed, epoch=epoch)) for seed in (0, 1) for epoch in (0, 1, 2)}
    assert len(orders) == 6
