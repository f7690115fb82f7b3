"""A gate is run again only from what its verdict attests; tests/pipeline/test_attestation.py does run some."""

import json
from types import SimpleNamespace

import pytest

from pipeline.rerun import require_same_again
from safety.attestation import Attestation
from safety.clauses import Clause
from safety.gate_folder import save
from safety.verdict import Verdict
from training.errors import Refused

SAMPLES = json.dumps({"id": "1", "text": "x", "stratum": "toxic", "source": "test", "samples": [], "scores": {}}) + "\n"
FILES = {"samples.jsonl": SAMPLES, "report.json": json.dumps({"prompts": {"sets": []}})}


@pytest.fixture
def again(tmp_path):
    """Runs again a gate that stored some files and now comes to another verdict; returns why it was refused."""

    def call(files, meanwhile=lambda folder: None, **changed):
        verdict = Verdict(
            stage="sft", profile="x", outcome="pass", reasons=("fine",), clauses=(Clause("a/b", "pass", "fine"),),
            checkpoint="sha256:" + "c" * 64, policy="sha256:" + "b" * 64,
        )  # fmt: skip
        gate = tmp_path / "gate"
        saved = save(verdict, gate, files)
        meanwhile(gate)
        found = SimpleNamespace(**{name: getattr(saved, name) for name in saved.__dataclass_fields__} | changed)
        run = SimpleNamespace(
            folder=SimpleNamespace(stage=lambda name: SimpleNamespace(gate=gate)),
            data_files=lambda: SimpleNamespace(preferences_held_out="pairs.jsonl"),
            judge=lambda stage, into, prompts, origins: Verdict(**vars(found)),
        )
        digest = "sha256:" + "0" * 64
        with pytest.raises(Refused) as caught:
            require_same_again(run, Attestation(saved, digest, "", "", {}, {}))  # pyright: ignore[reportArgumentType]
        return str(caught.value)

    return call


def test_a_gate_that_stored_nothing(again):
    """Nothing of it could come out again."""
    assert "cannot be run again: what it stored" in again({})


def test_a_gate_whose_files_were_edited(again):
    def edit(gate):
        (gate / "samples.jsonl").write_text(SAMPLES + "\n")

    assert "is missing or was edited" in again(FILES, edit)
    assert "is missing or was edited" in again(FILES, lambda gate: (gate / "report.json").unlink())


def test_another_verdict(again):
    assert "run again gives another verdict: policy was 'sha256:bb" in again(FILES, policy="sha256:" + "d" * 64)
