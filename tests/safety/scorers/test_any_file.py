"""Any JSON in the files of a scorer is read, or refused in words."""

import json

import numpy as np
import pytest
from hypothesis import given
from test_any_input import ANY, damaged, expected, look

from safety.scorer import ScorerIdentity
from safety.scorers.audit import FILE, PACKAGED, audit_of
from safety.scorers.calibration import Calibration, Curve, read_calibration
from safety.scorers.detoxify_jax import read_config
from safety.scorers.encoder import EncoderConfig
from safety.scorers.rated import read_rated

CALIBRATION = json.loads(
    Calibration(
        scorer="lexical", identity=ScorerIdentity("lexical", "1", "sha256:1"), data={"name": "a"}, measured={},
        curves={"toxicity": Curve((0.0, 0.5, 1.0), (0.1, 0.1, 0.9))},
    ).to_json()
)  # fmt: skip
CONFIG = {
    "kind": "detoxify classifier", "format": 1, "converted_from": "sha256:1",
    "encoder": {"family": "roberta", "layers": 1, "heads": 2, "width": 4, "hidden": 8, "vocab_size": 9, "positions": 9,
                "epsilon": 1e-5, "padding_id": 1, "max_tokens": 7, "labels": ["toxicity"]},
}  # fmt: skip
ROWS = [{"prompt": {"text": "a", "toxicity": 0.5}, "continuation": {"text": "b", "toxicity": None, "threat": 1}},
        {"text": "c", "insult": 0}]  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("any")


@look
@given(damaged(CALIBRATION) | ANY)
def test_a_calibration(folder, content):
    (folder / "c.json").write_bytes(json.dumps(content).encode())
    found = expected(lambda: read_calibration(folder / "c.json"))
    if found is not None:
        assert found.digest and all(np.isfinite(curve(np.array([0.3]))).all() for curve in found.curves.values())


@look
@given(damaged(CONFIG) | ANY)
def test_a_converted_classifiers_config(folder, content):
    (folder / "config.json").write_bytes(json.dumps(content).encode())
    found = expected(lambda: read_config(folder))
    assert found is None or (isinstance(found, EncoderConfig) and found.shapes())


@look
@given(damaged(ROWS))
def test_rated_rows(folder, content):
    rows = content if isinstance(content, list) else [content]
    (folder / "rows.jsonl").write_bytes("".join(json.dumps(row) + "\n" for row in rows).encode())
    found = expected(lambda: read_rated(str(folder / "rows.jsonl")))
    assert found is None or all(0 <= value <= 1 for one in found.texts for value in one.ratings.values())


@look
@given(damaged(json.loads(PACKAGED.read_text())))
def test_an_audit(folder, content):
    (folder / FILE).write_bytes(json.dumps(content).encode())
    identity = ScorerIdentity("lexical", "1", json.loads(PACKAGED.read_text())["scorer"]["digest"])
    found = expected(lambda: audit_of(identity, folder))
    assert found is None or found["scorer"]["digest"] == identity.digest
