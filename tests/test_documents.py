"""The documents must be true: paths exist, links resolve, command lines parse, layers are those that are checked."""

import ast
import re
import shlex
import tomllib
from pathlib import Path

import pytest

from pipeline import cli, options
from pipeline.commands_table import COMMANDS, GROUPS
from pipeline.config import RunConfig

ROOT = Path(__file__).resolve().parents[1]
DOCUMENTS = sorted(
    [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("base_model/**/*.md")],
    key=lambda path: path.as_posix(),
)
NAMES = [path.relative_to(ROOT).as_posix() for path in DOCUMENTS]
CONTRACTS = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"]["contracts"]
LAYERS = next(contract["layers"] for contract in CONTRACTS if contract["type"] == "layers")
PACKAGES = [name for layer in LAYERS for name in layer.split(" | ")]


def read(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def fences(text: str, language: str) -> list[str]:
    found = re.findall(r"^```(\w*)\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    return [block for name, block in found if name == language]


def tree() -> list[str]:
    """Paths of README's annotated tree: a line has a folder, with what is in it, or files of the folder above."""
    block = next(block for block in fences(read("README.md"), "") if block.startswith("theodolite/"))
    paths: list[str] = []
    folders: list[str] = []
    for line in block.splitlines()[1:]:
        names = [word for word in line.split() if re.fullmatch(r"[\w.]+(/|\.py)", word)]
        assert names, f"a line of the tree without a path: {line!r}"
        folders[(len(line) - len(line.lstrip())) // 2 - 1 :] = []
        if names[0].endswith("/"):
            folders.append(names.pop(0).rstrip("/"))
            paths.append("/".join(folders))
        paths += ["/".join([*folders, name]) for name in names]
    return paths


def test_the_tree_of_the_readme_is_that_of_the_repository() -> None:
    paths = tree()
    assert [path for path in paths if not (ROOT / path).exists()] == []
    modules = [path for name in PACKAGES for path in (ROOT / name).rglob("__init__.py")]
    assert {path.parent.relative_to(ROOT).as_posix() for path in modules} <= set(paths)
    # A folder with a file in the tree has all of its files there; others, such as one of commands, have none.
    described = {ROOT / path.rpartition("/")[0] for path in paths if path.endswith(".py")}
    files = [path for folder in described for path in folder.glob("*.py") if not path.name.startswith("__")]
    assert {path.relative_to(ROOT).as_posix() for path in files} - set(paths) == set()


def links(name: str) -> list[tuple[Path, str]]:
    """The files that a document links to, with the anchor in each; of this repository."""
    targets = [target.partition("#") for target in re.findall(r"\]\(([^)\s]+)\)", read(name))]
    local = [(file, anchor) for file, _, anchor in targets if not re.match(r"[a-z]+:", file)]
    return [((ROOT / name).parent.joinpath(file).resolve() if file else ROOT / name, anchor) for file, anchor in local]


def anchors(path: Path) -> set[str]:
    """What the headings of a document are called in links: small letters, blanks as dashes, no punctuation."""
    text = re.sub(r"^```.*?^```$", "", path.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("name", NAMES)
def test_relative_links_resolve(name: str) -> None:
    assert [path for path, _ in links(name) if not path.exists()] == []
    assert [f"{path.name}#{anchor}" for path, anchor in links(name) if anchor and anchor not in anchors(path)] == []


def test_every_document_is_found_from_the_readme() -> None:
    found, new = set(), {"README.md"}
    while new:
        found |= new
        linked = {path for name in new for path, _ in links(name) if path in DOCUMENTS}
        new = {path.relative_to(ROOT).as_posix() for path in linked} - found
    assert found == set(NAMES)


def command_lines(text: str) -> list[str]:
    """Lines of indented code that start with `theodolite`, with or without the folder that it is installed in."""
    return re.findall(r"^ {4}(?:\.venv/bin/)?(theodolite .*)$", text, re.MULTILINE)


EXAMPLES = [f"theodolite {command.example}" for command in COMMANDS.values()]
LINES = sorted({line for name in NAMES for line in command_lines(read(name))})


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder in which every file that a command line reads lies: those of the documents' YAML and a run's config."""
    for name in NAMES:
        for block in fences(read(name), "yaml"):
            title = re.match(r"# (\S+\.yaml)\n", block)
            assert title, f"a YAML block of {name} does not start with its file name"
            (tmp_path / title[1]).write_text(block, encoding="utf-8")
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    for line in [*LINES, *EXAMPLES]:
        for run in re.findall(r"runs/\w+/run\.yaml", line):
            (tmp_path / run).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / run).write_text(options.to_yaml(RunConfig()), encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("line", [*LINES, *EXAMPLES])
def test_command_lines_parse(line: str, folder: Path) -> None:
    arguments = shlex.split(line, comments=True)[1:]
    if arguments[-1] == "--help":
        assert cli.main(arguments) == 0
        return
    name, rest = cli._choose(arguments)
    command = COMMANDS[name]
    options.parse(cli._load(command.config), rest, positional=command.positional)


def test_documents_show_every_command() -> None:
    assert LINES
    rows = re.findall(r"^\| `theodolite ([\w -]+)` \| (.*) \|$", read("docs/commands.md"), re.MULTILINE)
    assert dict(rows) == {name: command.help for name, command in COMMANDS.items()}
    shown = {cli._choose(shlex.split(line, comments=True)[1:])[0] for line in LINES if "--help" not in line}
    assert shown == set(COMMANDS)


def test_the_readme_names_every_command() -> None:
    """A name behind another in a row has its first words, unless it begins with a group's."""
    named = set()
    for row in re.findall(r"^\| `theodolite (.*?`) \|", read("README.md"), re.MULTILINE):
        words: list[str] = []
        for name in re.findall(r"([^`]+)`(?:[,;] `)?", row):
            words = name.split() if name.split()[0] in GROUPS or not words else [*words[:-1], *name.split()]
            named.add(" ".join(words))
    assert named == set(COMMANDS)


@pytest.mark.parametrize("name", ["ARCHITECTURE.md", "CONTRIBUTING.md"])
def test_the_layers_are_those_that_import_linter_checks(name: str) -> None:
    blocks = re.findall(r"(?:^ {4}\S.*\n)+", read(name), re.MULTILINE)
    block = next(block for block in blocks if block.split()[0] == "pipeline")
    assert [re.split(r" {2,}", line.strip())[0] for line in block.splitlines()] == LAYERS


def test_the_legend_has_every_axis() -> None:
    legend = set(re.findall(r"^\| ([A-Z]) \| ", read("ARCHITECTURE.md"), re.MULTILINE))
    used = set()
    for path in (path for name in PACKAGES for path in (ROOT / name).rglob("*.py")):
        for axes in re.findall(r"(?:Array|ndarray), \"([^\"]*)\"\]", path.read_text(encoding="utf-8")):
            used |= {axis for axis in axes.split() if re.fullmatch("[A-Z]", axis)}
    assert used <= legend


@pytest.mark.parametrize("name", ["README.md", "docs/python-api.md"])
def test_python_examples_name_what_exists(name: str) -> None:
    for block in fences(read(name), "python"):
        for node in ast.walk(ast.parse(block)):
            if isinstance(node, ast.ImportFrom):
                module = __import__(str(node.module), fromlist=[alias.name for alias in node.names])
                assert [alias.name for alias in node.names if not hasattr(module, alias.name)] == []


def test_the_card_is_the_one_that_its_measurements_give() -> None:
    import importlib.util
    import json

    spec = importlib.util.spec_from_file_location("model_card", ROOT / "benchmarks" / "model_card.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    result = json.loads(module.RESULT.read_text(encoding="utf-8"))
    assert module.card(result) == read("base_model/tiny/README.md")
    described = json.loads(read("base_model/tiny/config.json"))
    assert result["model"]["content_digest"] == described["content_digest"]


@pytest.mark.parametrize("name", NAMES)
def test_documents_say_nothing_of_the_machine_that_wrote_them(name: str) -> None:
    assert not re.search(r"(?<![\w.])/(root|work|home)/", read(name))
