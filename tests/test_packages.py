"""The packages have everyday names: ours must be the ones imported, and imports must stay light."""

import importlib
import importlib.metadata
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("training", "base_model", "sft", "reward", "safety", "ppo", "pipeline")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", PACKAGES)
def test_the_package_is_this_repositorys(name: str) -> None:
    package = importlib.import_module(name)
    assert package.__file__ is not None
    assert Path(package.__file__).resolve() == ROOT / name / "__init__.py"
    assert package.__doc__


def test_every_list_of_packages_is_complete() -> None:
    tool = PROJECT["tool"]
    assert sorted(tool["hatch"]["build"]["targets"]["wheel"]["packages"]) == sorted(PACKAGES)
    assert sorted(tool["pyright"]["include"]) == sorted(PACKAGES)
    assert sorted(tool["importlinter"]["root_packages"]) == sorted(PACKAGES)
    folders = {path.parent.name for path in ROOT.glob("*/__init__.py")}
    assert folders == set(PACKAGES)


def test_it_cannot_be_uploaded_by_accident() -> None:
    assert "Private :: Do Not Upload" in PROJECT["project"]["classifiers"]


def test_every_dependency_has_both_bounds() -> None:
    extras = PROJECT["project"]["optional-dependencies"].values()
    for requirement in [*PROJECT["project"]["dependencies"], *(line for extra in extras for line in extra)]:
        assert re.search(r">=.+,<|==|^theodolite\[", requirement), requirement


def test_no_core_dependency_asks_for_torch() -> None:
    """Follows the installed packages' own requirements, extras left out."""
    seen: set[str] = set()
    waiting = [re.split(r"[^\w.-]", line)[0] for line in PROJECT["project"]["dependencies"]]
    while waiting:
        name = waiting.pop().lower().replace("_", "-")
        if name in seen:
            continue
        seen.add(name)
        try:
            requirements = importlib.metadata.requires(name) or []
        except importlib.metadata.PackageNotFoundError:  # a requirement of another platform or Python
            continue
        waiting += [re.split(r"[^\w.-]", line)[0] for line in requirements if "extra ==" not in line]
    assert "jax" in seen and "numpy" in seen
    assert not seen & {"torch", "tensorflow", "transformers"}


@pytest.mark.parametrize("module", ["pipeline.cli", "pipeline.options", "pipeline.ledger", "pipeline.run_folder"])
def test_the_command_line_frame_imports_nothing_heavy(module: str) -> None:
    script = f"import sys, {module}; print(*sorted({{name.partition('.')[0] for name in sys.modules}}))"
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    heavy = {"jax", "flax", "optax", "orbax", "numpy", "rlax", "datasets", "matplotlib", "torch", "sklearn", "rich"}
    assert not heavy & set(done.stdout.split())
