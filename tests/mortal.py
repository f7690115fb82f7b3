"""Processes that are killed: forked from one that has imported everything and computed nothing, so that each is cheap.

As a program it reads one JSON request a line, forks, and answers with the child's process id and then its exit status.
"""

import contextlib
import importlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]


class Nursery:
    """Starts commands, and kills them; use as a context manager."""

    def __init__(self, folder):
        """What the commands print goes to the folder."""
        self.log = folder / "log.txt"
        path = f"{ROOT}{os.pathsep}{ROOT / 'tests'}"
        environment = {**os.environ, "JAX_PLATFORMS": "cpu", "PYTHONPATH": path}
        command = [sys.executable, "-W", "ignore", str(Path(__file__).absolute())]
        with (folder / "nursery.txt").open("w") as errors:
            self._process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, text=True, env=environment
            )

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()

    def run(self, function, *arguments, die=None, kill_when=None, delay=0.0):
        """Calls `module:function` in a process of its own and returns its exit status (negative: the signal).

        Args:
            function: what to call.
            arguments: JSON values.
            die: (`module:attribute`, n, "before" or "after", words): the process kills itself at the n-th call of that
                whose first argument contains the words.
            kill_when: called over and over; once it returns true, the process is killed from outside.
            delay: seconds to wait before that.
        """
        request = {"function": function, "arguments": arguments, "die": die, "log": str(self.log)}
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        pid = int(self._process.stdout.readline())
        running = Path(f"/proc/{pid}/stat")
        if kill_when is not None:
            while running.read_text().rpartition(")")[2].split()[0] != "Z" and not kill_when():
                time.sleep(0.0005)
            time.sleep(delay)
            os.kill(pid, signal.SIGKILL)  # the nursery has not been told to wait for it yet, so the id is still its own
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        return os.waitstatus_to_exitcode(int(self._process.stdout.readline()))


def kill_myself_at(target, call, when, words=""):
    """Wraps a function so that its n-th call (with these words in its first argument) is the end of this process."""
    module, _, name = target.partition(":")
    *owner, name = name.split(".")
    holder = importlib.import_module(module)
    for part in owner:
        holder = getattr(holder, part)
    real, calls = getattr(holder, name), []

    def mortal(*arguments, **options):
        if words and words not in str(arguments[0]):
            return real(*arguments, **options)
        calls.append(None)
        if len(calls) == call and when == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        result = real(*arguments, **options)
        if len(calls) == call and when == "after":
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    setattr(holder, name, mortal)


def live(request):
    """What a child does; returns its exit status."""
    log = os.open(request["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(log, 1)
    os.dup2(log, 2)
    if request["die"]:
        kill_myself_at(*request["die"])
    module, _, name = request["function"].partition(":")
    return getattr(importlib.import_module(module), name)(*request["arguments"]) or 0


def main():
    """Serves requests until there are no more."""
    for name in ("pipeline.stages", "pipeline.summary", "pipeline.report", "pipeline.session", "base_model.pretrain"):
        importlib.import_module(name)
    for line in sys.stdin:
        pid = os.fork()
        if pid == 0:
            status = 1
            with contextlib.suppress(SystemExit):
                try:
                    status = live(json.loads(line))
                except Exception:
                    import traceback

                    traceback.print_exc()
            sys.stdout.flush()
            os._exit(status)
        print(pid, flush=True)
        sys.stdin.readline()
        print(os.waitpid(pid, 0)[1], flush=True)


if __name__ == "__main__":
    main()
