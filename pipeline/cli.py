"""The command line: finds the command, builds its config, calls it, and turns what happens into an exit code.

Exit codes: 0 done or passed, 1 crash, 2 usage or bad input, 3 gate failed, 4 gate inconclusive, 5 refused,
130 interrupted.
"""

import atexit
import dataclasses
import difflib
import importlib
import os
import signal
import sys
import textwrap
import traceback
from collections.abc import Sequence
from typing import Any

from pipeline import __version__, environment
from pipeline.commands_table import COMMANDS, GROUPS, Command
from pipeline.disk import disk_error
from training.errors import BadInput, TheodoliteError

_ABOUT = """\
theodolite aligns a small multimodal language model from end to end (base, SFT, reward model, PPO) and measures its
toxicity before every next step: a stage only reads a checkpoint that has passed its gate."""

_FOOTER = """\
Every command reads --config FILE.yaml and overrides like ppo.kl_coef=0.02, and has its own --help.
exit codes: 0 done or passed, 1 crash, 2 bad input, 3 gate failed, 4 gate inconclusive, 5 refused"""


def entry() -> int:
    """The `theodolite` program."""
    environment.open_standard_streams()
    if sys.argv[1:] and not {"-h", "--help"} & set(sys.argv):  # a help page is to come at once
        environment.keep_freed_memory(os.environ)
    atexit.register(signal.signal, signal.SIGINT, signal.SIG_IGN)  # at the very end Python takes handlers back
    signal.signal(signal.SIGINT, _interrupt)
    code = main()
    signal.signal(signal.SIGINT, lambda *_: os._exit(code))  # all is done and said; Python would show a traceback
    return code


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command line.

    Args:
        argv: The arguments without the program's name; those of the process if None.

    Returns:
        The exit code. Expected failures print one line on stderr and raise nothing.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    environment.prepare(os.environ)
    try:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})  # see environment.keep_freed_memory
        code = _run(arguments)
        sys.stdout.flush()
        return code
    except TheodoliteError as error:
        _complain(str(error))
        return error.exit_code
    except KeyboardInterrupt:
        if signal.getsignal(signal.SIGINT) is _interrupt_again:
            signal.signal(signal.SIGINT, signal.SIG_IGN)  # what is to be said is said here
        _complain("interrupted")
        return 130
    except BrokenPipeError:  # `theodolite ... | head`: nobody is left to read
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Exception as error:
        if expected := disk_error(error):
            _complain(str(expected))
            return expected.exit_code
        _complain_about_crash(error)
        return 1


def _interrupt(*_: object) -> None:
    """Ctrl-C: what is open is closed, and the command ends."""
    signal.signal(signal.SIGINT, _interrupt_again)
    raise KeyboardInterrupt


def _interrupt_again(*_: object) -> None:
    """Ctrl-C once more: the command ends at once. Files are whole at any time, so nothing is lost."""
    os.write(2, b"theodolite: interrupted\n")
    os._exit(130)


def _run(arguments: list[str]) -> int:
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(_overview())
        return 0
    if arguments[0] == "--version":
        print(f"theodolite {__version__}")
        return 0
    name, rest = _choose(arguments)
    if name in GROUPS:
        print(_group_page(name))
        return 0
    command = COMMANDS[name]
    if "-h" in rest or "--help" in rest:
        print(_command_page(name, command, _load(command.config)), end="")
        return 0
    try:
        config = _config(command, rest)
    except BadInput as error:
        raise BadInput(f"{error} (theodolite {name} --help)") from error
    return _load(command.target)(config) or 0


def _choose(arguments: list[str]) -> tuple[str, list[str]]:
    """The command (or the group, if only that or its help is asked for) and what follows it."""
    first = arguments[0]
    if first in COMMANDS:
        return first, arguments[1:]
    if first not in GROUPS:
        known = [*GROUPS, *(name for name in COMMANDS if " " not in name)]
        raise BadInput(f"unknown command {first!r}{_hint(first, known)}")
    if len(arguments) == 1 or arguments[1] in ("-h", "--help", "help"):
        return first, []
    for words in (2, 3):
        if (name := " ".join(arguments[:words])) in COMMANDS:
            return name, arguments[words:]
    name = f"{first} {arguments[1]}"
    siblings = [known.removeprefix(f"{first} ") for known in COMMANDS if known.startswith(f"{first} ")]
    raise BadInput(f"unknown command {name!r}{_hint(arguments[1], siblings, first)}")


def _config(command: Command, words: list[str]) -> Any:
    """The command's config. In the folder of a run the options of that run stand in for the defaults."""
    # imported here: the help pages must not wait for them
    from pipeline import options
    from pipeline.config import KEYS, RunConfig

    config_class = _load(command.config)
    config = options.parse(config_class, words, positional=command.positional)
    if not isinstance(config, RunConfig) or not (remembered := config.run_folder / "run.yaml").is_file():
        return config
    again = options.parse(config_class, ["--config", str(remembered), *words], positional=command.positional)
    if any(getattr(again, name) != getattr(config, name) for name in KEYS):
        raise BadInput(f"{remembered} names keys; whom to trust is not for a run's folder to say: take them out")
    return dataclasses.replace(again, out=config.out)  # the folder may have been moved


def _hint(word: str, known: list[str], group: str = "") -> str:
    near = difflib.get_close_matches(word, known, n=1, cutoff=0.5)
    names = [f"{group} {name}".strip() for name in near or known]
    return f"; did you mean {names[0]!r}?" if near else f"; the commands are {', '.join(names)}"


def _load(address: str) -> Any:
    module, _, name = address.partition(":")
    return getattr(importlib.import_module(module), name)


def _overview() -> str:
    lines = [_ABOUT, "", "usage: theodolite COMMAND [--config FILE.yaml] [option=value ...]", "", "commands:"]
    lines += [f"  {name:<16} {command.help}" for name, command in COMMANDS.items()]
    lines += ["", "example: theodolite quickstart", "", _FOOTER]
    return "\n".join(lines)


def _group_page(group: str) -> str:
    inside = {name: command for name, command in COMMANDS.items() if name.startswith(f"{group} ")}
    lines = [f"theodolite {group}: {GROUPS[group]}", ""]
    lines += [f"usage: theodolite {group} COMMAND [--config FILE.yaml] [option=value ...]", "", "commands:"]
    lines += [f"  {name:<16} {command.help}" for name, command in inside.items()]
    lines += ["", f"example: theodolite {next(iter(inside.values())).example}", ""]
    lines += [f"`theodolite {next(iter(inside))} --help` lists a command's options."]
    return "\n".join(lines)


def _command_page(name: str, command: Command, config_class: type) -> str:
    from pipeline import options

    bare = "" if command.positional is None else f" {command.positional.upper()}"
    return options.help_page(
        config_class,
        usage=f"theodolite {name}{bare} [--config FILE.yaml] [option=value ...]",
        description=f"theodolite {name}: {command.help}",
        example=f"theodolite {command.example}",
    )


def _complain(message: str) -> None:
    print(f"theodolite: {' '.join(message.split())}", file=sys.stderr)


def _complain_about_crash(error: Exception) -> None:
    if os.environ.get("THEODOLITE_DEBUG") == "1":
        traceback.print_exception(error)
    what = textwrap.shorten(f"{type(error).__name__}: {error}", width=400, placeholder=" ...")
    where = "; ".join(getattr(error, "__notes__", [])) or "THEODOLITE_DEBUG=1 shows the traceback"
    _complain(f"crashed: {what} ({where})")


if __name__ == "__main__":
    sys.exit(entry())
