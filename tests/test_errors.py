"""The table of errors is true: its tests exist and look for that exit code, and its messages are in the program."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGE = (ROOT / "docs/errors.md").read_text(encoding="utf-8")
LINES = re.findall(r"^\| (.+) \| (.+) \| (\d+) \| `([\w/]+\.py)::(\w+)` \|$", PAGE, re.MULTILINE)
ATTACKS = re.findall(r"`([\w/]+\.py)::(\w+)`", (ROOT / "docs/attestation.md").read_text(encoding="utf-8"))
SOURCES = [
    path.read_text(encoding="utf-8")
    for name in ("training", "base_model", "sft", "reward", "safety", "ppo", "pipeline")
    for path in (ROOT / name).rglob("*.py")
]


def test_every_row_of_the_tables_is_understood() -> None:
    rows = [line for line in PAGE.splitlines() if "::" in line]
    assert len(LINES) == len(rows) > 30


@pytest.mark.parametrize(("file", "name"), sorted({*ATTACKS, *((file, name) for _, _, _, file, name in LINES)}))
def test_every_test_exists(file: str, name: str) -> None:
    tree = ast.parse((ROOT / "tests" / file).read_text(encoding="utf-8"))
    assert name in {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}


def test_exit_codes_are_those_of_the_command_line() -> None:
    listed = re.findall(r"^\| (\d+) \| ", (ROOT / "docs/commands.md").read_text(), re.M)
    assert {code for _, _, code, _, _ in LINES} <= set(listed)


@pytest.fixture(scope="module")
def printed() -> str:
    """The fixed parts of all strings of the program."""
    nodes = (node for source in SOURCES for node in ast.walk(ast.parse(source)))
    return "\n".join(node.value for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str))


@pytest.mark.parametrize("message", sorted({message for _, message, _, _, _ in LINES if message.startswith("`")}))
def test_messages_are_those_of_the_program(message: str, printed: str) -> None:
    """Three words on end of each stand in one string of the program; values stand between them."""
    words = re.sub("[,;:]", "", message.strip("`")).split("`")[0].split()
    size = min(3, len(words))
    runs = [" ".join(words[start : start + size]) for start in range(len(words) - size + 1)]
    assert any(run in re.sub("[`,;:]", "", printed) for run in runs)
