"""The properties of test_any_input.py and test_any_numbers.py under atheris, which keeps inputs that reach new code.

    pip install 'atheris>=3,<4'
    python tests/fuzz/any_input.py CORPUS -max_total_time=1200

atheris is in no extra: it is built for few versions of Python. CORPUS is a folder of inputs, which grows; without one
nothing is kept. An input that falls is written to the working directory, and named once more it falls again. Other
words are libFuzzer's; `only=pictures` looks at the tests of that name alone.
"""

import importlib
import inspect
import os
import sys
import tempfile
from pathlib import Path

import atheris

os.environ.setdefault("JAX_PLATFORMS", "cpu")
ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]
OURS = ("training", "base_model", "sft", "reward", "safety", "ppo", "pipeline")

with atheris.instrument_imports(include=[*OURS, "yaml", "json"], enable_loader_override=False):
    for module in ("pipeline.stages", "pipeline.commands.stage", "base_model.distill",
                   "base_model.published.importing"):  # fmt: skip
        importlib.import_module(module)

import pytest  # noqa: E402
from arbitrary import look  # noqa: E402
from hypothesis import given  # noqa: E402


class Targets:
    """Takes the tests from pytest when their fixtures are there, instead of running them."""

    def __init__(self):
        self.tests = []

    @pytest.hookimpl(tryfirst=True)
    def pytest_pyfunc_call(self, pyfuncitem):
        given_ = pyfuncitem.obj.hypothesis
        wanted = inspect.signature(given_.inner_test).parameters
        fixtures = {name: value for name, value in pyfuncitem.funcargs.items() if name in wanted}

        def bound(**values):
            return given_.inner_test(**fixtures, **values)

        # Hypothesis draws what a function's signature names, and what is a fixture it must not.
        drawn = [wanted[name].replace(kind=inspect.Parameter.KEYWORD_ONLY) for name in given_._given_kwargs]
        bound.__signature__ = inspect.Signature(drawn)
        property_ = look(given(**given_._given_kwargs)(bound))
        self.tests.append((pyfuncitem.name, property_.hypothesis.fuzz_one_input))
        return True


def main():
    words = [word for word in sys.argv[1:] if word.startswith("only=")]
    only = ["-k", words[-1].removeprefix("only=")] if words else []
    targets = Targets()
    files = [str(ROOT / "tests" / name) for name in ("test_any_input.py", "test_any_numbers.py")]
    # Without the check of types at run time, which would be most of what is reached.
    options = ["-q", "-o", "addopts=--import-mode=importlib", "-p", "no:xdist", "-W", "ignore", *only]
    # In a folder of its own: pytest's next sessions remove those of the ones before.
    options += ["--basetemp", tempfile.mkdtemp(prefix="theodolite-fuzz-")]
    assert pytest.main([*options, *files], plugins=[targets]) == 0 and targets.tests

    def fall(content):
        if content:
            name, test = targets.tests[content[0] % len(targets.tests)]
            try:
                test(content[1:])
            except Exception:
                print(f"fell: {name}", file=sys.stderr)
                raise

    # Long inputs from the start: of a few bytes Hypothesis makes nothing.
    given_words = [word for word in sys.argv[1:] if word not in words]
    atheris.Setup([sys.argv[0], "-len_control=0", *given_words], fall)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
