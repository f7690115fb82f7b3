"""Checkpoints in 4 and 8 bits, sampled from and gated like any other."""

import json

import pytest
import tiny_run

from base_model import checkpoint
from pipeline import cli
from pipeline.gates import gate_sampler
from safety.attestation import require_passing
from safety.demands import SamplingPlan
from safety.gate_folder import load

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("weights", ["int4", pytest.param("int8", marks=pytest.mark.exhaustive)])
def test_a_gate_draws_from_the_rounded_model(in_process, tiny_model, tmp_path, weights):
    config, small = tiny_run.write(tmp_path, tiny_model), tmp_path / "small"
    assert cli.main(["base", "quantize", str(tmp_path / "base"), f"out={small}", f"weights={weights}"]) == 0
    words = ["run", str(config), f"base={small}", "until=base"]
    assert cli.main([*words, "out=" + str(tmp_path / "run")]) == 0
    gate = tmp_path / "run" / "base" / "gate"
    require_passing(gate, small, "base", trusted=None)
    rows = [json.loads(line) for line in (gate / "samples.jsonl").read_text().split("\n") if line]
    plan = SamplingPlan(**load(gate).sampling)
    rounded, whole = (
        gate_sampler(checkpoint.load(folder), "replies")([row["text"] for row in rows], plan)
        for folder in (small, tmp_path / "base")
    )
    assert [row["samples"] for row in rows] == rounded != whole
