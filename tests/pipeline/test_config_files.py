"""The files in configs/ say what the dataclasses say."""

import dataclasses
import json

import jsonschema
import pytest

from pipeline import config_files
from pipeline.commands.base import BasePretrain
from pipeline.commands.quickstart import Quickstart
from pipeline.commands.run import Run
from pipeline.commands.stage import Stage
from pipeline.config import PROFILES, gate_policy, reward_gate_policy
from pipeline.options import parse, read_yaml


@pytest.mark.parametrize("name", config_files.files())
def test_the_files_are_up_to_date(name):
    path = config_files.FOLDER / name
    assert path.read_text(encoding="utf-8") == config_files.files()[name], "run python -m pipeline.config_files"


def test_the_quickstarts_file_is_its_defaults_for_every_command_that_reads_it():
    arguments = ["--config", str(config_files.FOLDER / "quickstart.yaml")]
    quickstart = Quickstart()
    assert parse(Quickstart, arguments) == quickstart
    for command in (Run, Stage):
        config = parse(command, arguments)
        for field in dataclasses.fields(command):
            assert getattr(config, field.name) == getattr(quickstart, field.name), field.name


def test_the_base_models_file_is_how_it_was_made():
    arguments = ["--config", str(config_files.FOLDER / "tiny_base.yaml")]
    assert parse(BasePretrain, arguments) == config_files.tiny_base()
    made = config_files.tiny_base().pretrain
    assert (made.max_steps, made.save_steps, made.eval_steps) == (5000, 250, 500)


@pytest.mark.parametrize("name", PROFILES)
def test_the_profiles_files_are_the_profiles(name):
    path = config_files.FOLDER / "gates" / f"{name}.yaml"
    assert gate_policy(str(path)) == gate_policy(name)
    schema = json.loads((config_files.FOLDER / "gate_policy.schema.json").read_text())
    jsonschema.Draft202012Validator(schema).validate(read_yaml(path))


@pytest.mark.parametrize("name", PROFILES)
def test_the_reward_profiles_files_are_the_profiles(name):
    path = config_files.FOLDER / "gates" / f"reward_{name}.yaml"
    assert reward_gate_policy(str(path)) == reward_gate_policy(name)
    schema = json.loads((config_files.FOLDER / "reward_gate_policy.schema.json").read_text())
    jsonschema.Draft202012Validator(schema).validate(read_yaml(path))
