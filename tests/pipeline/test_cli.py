import dataclasses
import importlib
import os
import subprocess
import sys
import types
from pathlib import Path

import pytest

from pipeline import cli, environment
from pipeline.commands_table import COMMANDS, GROUPS, Command
from pipeline.run_folder import RunFolder
from training.errors import BadInput, GateFailed, GateInconclusive, Refused

ROOT = Path(__file__).resolve().parents[2]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Polish:
    """Polishing.

    Attributes:
        out: The run folder.
        times: How often to polish.
    """

    out: str
    times: int = 1


class Polishing:
    """A command made for these tests; `then` is what happens when it runs."""

    def __init__(self) -> None:
        self.configs: list[Polish] = []
        self.then: BaseException | int | None = None

    def __call__(self, config: Polish) -> int | None:
        self.configs.append(config)
        if isinstance(self.then, BaseException):
            raise self.then
        return self.then


@pytest.fixture
def polishing(monkeypatch: pytest.MonkeyPatch) -> Polishing:
    function = Polishing()
    module = types.ModuleType("polishing_for_tests")
    module.polish, module.Polish = function, Polish  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, module.__name__, module)
    row = Command(
        target="polishing_for_tests:polish",
        config="polishing_for_tests:Polish",
        help="make it shine",
        example="lens polish out=a",
        positional="out",
    )
    monkeypatch.setitem(COMMANDS, "lens polish", row)
    monkeypatch.setitem(GROUPS, "lens", "lenses")
    monkeypatch.setattr(environment, "prepare", lambda environ: None)
    monkeypatch.delenv("THEODOLITE_DEBUG", raising=False)
    return function


def test_a_command_gets_its_config(polishing: Polishing, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["lens", "polish", "runs/a", "times=3"]) == 0
    assert polishing.configs == [Polish(out="runs/a", times=3)]
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("outcome", "code", "line"),
    [
        (None, 0, ""),
        (3, 3, ""),
        (BadInput("row 7 of\n a.jsonl is empty"), 2, "theodolite: row 7 of a.jsonl is empty\n"),
        (GateFailed("too toxic"), 3, "theodolite: too toxic\n"),
        (GateInconclusive("too few prompts"), 4, "theodolite: too few prompts\n"),
        (Refused("no verdict"), 5, "theodolite: no verdict\n"),
        (KeyboardInterrupt(), 130, "theodolite: interrupted\n"),
        (
            ZeroDivisionError("oh"),
            1,
            "theodolite: crashed: ZeroDivisionError: oh (THEODOLITE_DEBUG=1 shows the traceback)\n",
        ),
    ],
)
def test_what_happens_becomes_one_line_and_an_exit_code(
    polishing: Polishing, capsys: pytest.CaptureFixture[str], outcome: BaseException | int | None, code: int, line: str
) -> None:
    polishing.then = outcome
    assert cli.main(["lens", "polish", "out=a"]) == code
    assert capsys.readouterr().err == line


def test_debug_shows_the_traceback(
    polishing: Polishing, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("THEODOLITE_DEBUG", "1")
    polishing.then = ZeroDivisionError("oh")
    assert cli.main(["lens", "polish", "out=a"]) == 1
    assert "Traceback (most recent call last)" in capsys.readouterr().err


def test_a_crash_in_a_run_says_where_its_traceback_is(
    polishing: Polishing, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    run = RunFolder.create(tmp_path)
    with pytest.raises(ZeroDivisionError) as caught, run.locked():
        raise ZeroDivisionError("oh")
    polishing.then = caught.value
    assert cli.main(["lens", "polish", "out=a"]) == 1
    expected = f"theodolite: crashed: ZeroDivisionError: oh (the traceback is in {run.crash})\n"
    assert capsys.readouterr().err == expected


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["lens", "polihs"], "unknown command 'lens polihs'; did you mean 'lens polish'?"),
        (["lens", "xyz"], "unknown command 'lens xyz'; the commands are lens polish"),
        (["lense"], "unknown command 'lense'; did you mean 'lens'?"),
        (["quickstrat"], "unknown command 'quickstrat'; did you mean 'quickstart'?"),
        (["lens", "polish", "tims=1"], "unknown option tims; did you mean times? (theodolite lens polish --help)"),
        (["lens", "polish"], "missing required option out; give it as out=VALUE (theodolite lens polish --help)"),
    ],
)
def test_usage_errors(
    polishing: Polishing, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    assert cli.main(arguments) == 2
    assert capsys.readouterr().err == f"theodolite: {message}\n"
    assert polishing.configs == []


@pytest.mark.parametrize("arguments", [[], ["--help"], ["-h"], ["help"]])
def test_the_overview_lists_every_command(capsys: pytest.CaptureFixture[str], arguments: list[str]) -> None:
    assert cli.main(arguments) == 0
    page = capsys.readouterr().out
    for name, command in COMMANDS.items():
        assert f"  {name} " in page and command.help in page
    assert "example: theodolite quickstart" in page


@pytest.mark.parametrize("group", GROUPS)
def test_a_group_lists_its_own_commands(capsys: pytest.CaptureFixture[str], group: str) -> None:
    assert cli.main([group]) == cli.main([group, "--help"]) == 0
    page = capsys.readouterr().out
    for name in COMMANDS:
        assert (f"  {name} " in page) == name.startswith(f"{group} ")
    assert f"example: theodolite {group} " in page


def test_a_commands_help_does_not_run_it(polishing: Polishing, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["lens", "polish", "--help"]) == 0
    page = " ".join(capsys.readouterr().out.split())
    for part in ("make it shine", "How often to polish.", "default: 1", "example: theodolite lens polish out=a", "OUT"):
        assert part in page
    assert polishing.configs == []


def test_the_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out == "theodolite 0.1.0\n"


def test_every_command_belongs_somewhere_and_shows_itself() -> None:
    for name, command in COMMANDS.items():
        assert name.count(" ") == 0 or name.split()[0] in GROUPS
        assert command.example.startswith(name)
    assert all(any(name.startswith(f"{group} ") for name in COMMANDS) for group in GROUPS)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_exists_and_has_a_help_page(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    module, _, function = COMMANDS[name].target.partition(":")
    assert callable(getattr(importlib.import_module(module), function))
    assert cli.main([*name.split(), "--help"]) == 0
    page = capsys.readouterr().out
    assert f"example: theodolite {COMMANDS[name].example}" in " ".join(page.split())


def test_no_help_page_waits_for_jax() -> None:
    program = """
import sys
from pipeline import cli
from pipeline.commands_table import COMMANDS
slow = {name for name in COMMANDS if cli.main([*name.split(), "--help"]) or {"jax", "datasets"} & sys.modules.keys()}
sys.exit(", ".join(sorted(slow)) or 0)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT)
    assert done.stderr.strip() == "" and done.returncode == 0


def test_a_closed_pipe_is_not_a_crash() -> None:
    script = f"{sys.executable} -c 'import sys; from pipeline.cli import main; sys.exit(main([]))' | head -n 0"
    done = subprocess.run(["bash", "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stderr == ""


@pytest.mark.parametrize(("words", "code"), [("--help", 0), ("report nothere", 2)])
@pytest.mark.parametrize("closed", [">&-", "2>&-", "<&- >&- 2>&-"])
def test_closed_standard_streams_are_no_crash(words: str, code: int, closed: str) -> None:
    """As a daemon starts its children; the numbers of the streams must not go to files of the run."""
    script = f"{sys.executable} -m pipeline.cli {words} {closed}"
    done = subprocess.run(["bash", "-c", script], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == code and "crashed" not in done.stderr and "Traceback" not in done.stderr


def test_ctrl_c_while_python_starts_is_told_in_a_line() -> None:
    """The process starts anew with another allocator; what is pressed meanwhile waits until it can be answered."""
    start = (
        "import os, signal, sys; from pipeline import environment; real = os.execve\n"
        "os.execve = lambda *given: (os.kill(os.getpid(), signal.SIGINT), real(*given))\n"
        "sys.orig_argv = [sys.executable, '-m', 'pipeline.cli', 'report', 'nothere']\n"
        "environment.keep_freed_memory(os.environ)"
    )
    environ = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")}
    command = [sys.executable, "-c", start]
    done = subprocess.run(command, cwd=ROOT, env=environ, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (130, "theodolite: interrupted\n")


def test_the_compile_cache_and_its_switch() -> None:
    home = {"HOME": "/home/ada"}
    environ = dict(home)
    environment.prepare(environ)
    assert environ["JAX_COMPILATION_CACHE_DIR"].startswith("/home/ada/.cache/theodolite/xla/")
    environ = home | {"XDG_CACHE_HOME": "/cache", "JAX_PLATFORMS": "cpu"}
    environment.prepare(environ)
    assert environ["JAX_COMPILATION_CACHE_DIR"].startswith("/cache/theodolite/xla/")
    for off in ({"THEODOLITE_COMPILE_CACHE": "off"}, {"JAX_PLATFORMS": "tpu"}):
        environ = home | off
        environment.prepare(environ)
        assert "JAX_COMPILATION_CACHE_DIR" not in environ
    environ = home | {"JAX_COMPILATION_CACHE_DIR": "/mine", "TF_CPP_MIN_LOG_LEVEL": "0"}
    environment.prepare(environ)
    assert environ["JAX_COMPILATION_CACHE_DIR"] == "/mine"
    assert environ["TF_CPP_MIN_LOG_LEVEL"] == "0"


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="asks Linux how much memory a process has")
@pytest.mark.skipif(environment.platform.libc_ver()[0] != "glibc", reason="other allocators keep nothing")
def test_what_a_stage_leaves_free_goes_back_to_the_system() -> None:
    script = """
import numpy as np
from pipeline.environment import give_back_freed_memory
resident = lambda: int(open("/proc/self/statm").read().split()[1]) * 4096
filled = [np.ones(2**20, np.uint8) for _ in range(200)]
above = np.ones(2**20, np.uint8)
before = resident()
del filled
kept = resident()
give_back_freed_memory()
print(before - kept, kept - resident())
"""
    environ = {**environment.os.environ, **environment.ALLOCATOR, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", script], env=environ, capture_output=True, text=True, check=True)
    kept, given = map(int, done.stdout.split())
    assert kept < 2**24 and given > 190 * 2**20
