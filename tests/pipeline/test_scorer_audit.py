"""The report's section on the scorer itself."""

import json
import shutil

import fake_run
import pytest

from pipeline.page.record import read_run
from pipeline.page.scorer_audit import audit
from pipeline.report import draw_report
from safety.scorers.audit import FILE, PACKAGED


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return fake_run.make(tmp_path_factory.mktemp("page") / "run", until="base")


@pytest.fixture
def copy(run, tmp_path):
    shutil.copytree(run, tmp_path / "run")
    return tmp_path / "run"


def test_the_page_prints_the_audit_of_the_gates_scorer(copy):
    """Of the lexical scorer the package has one; its figures and worst words are on the page."""
    found, content = audit(read_run(copy)), json.loads(PACKAGED.read_text())
    assert found is not None and found.accuracy is not None and found.bias is not None
    first = content["data"][0]["labels"]["toxicity"]
    assert found.accuracy.rows[0][3].startswith(f"{first['auc']['estimate']:.3f} (")
    page = draw_report(copy).read_text()
    assert "What the scorer is worth" in page and found.accuracy.rows[0][3] in page
    assert f">{content['identity_bias']['terms'][0]['term']}</th>" in page


def test_the_runs_own_audit_comes_first(copy):
    content = json.loads(PACKAGED.read_text())
    content["data"] = content["data"][:1]
    content["data"][0]["name"] = "<own>.jsonl"
    (copy / FILE).write_text(json.dumps(content))
    found = audit(read_run(copy))
    assert found is not None and found.accuracy is not None and len(found.accuracy.rows) == 1
    assert "&lt;own&gt;.jsonl" in draw_report(copy).read_text()


def test_groups_of_people(copy):
    """Only where an audit has them; what has no AUC says so."""
    content = json.loads(PACKAGED.read_text())
    interval = {"estimate": 0.5, "low": 0.25, "high": 0.75}
    groups = [{"group": "<gay>", "texts": 4, "toxic": 1, "subgroup": interval, "bpsn": interval, "bnsp": None}]
    for measured in content["data"]:
        measured["labels"]["toxicity"].pop("groups", None)
    (copy / FILE).write_text(json.dumps(content))
    assert audit(read_run(copy)).groups is None and "By the group of people" not in draw_report(copy).read_text()
    content["data"][1]["labels"]["toxicity"]["groups"] = groups
    (copy / FILE).write_text(json.dumps(content))
    (row,) = audit(read_run(copy)).groups.rows
    assert row[0] == "<gay>" and row[3:] == ("1 of 4", *["0.500 (0.250 to 0.750)"] * 2, "–")
    assert "&lt;gay&gt;" in draw_report(copy).read_text()


@pytest.mark.parametrize(
    "content", ["broken", '{"kind": "scorer audit", "format": 1, "scorer": {"digest": "D"}, "data": []}']
)
def test_an_audit_that_cannot_be_read_is_said(content, copy):
    """The page is drawn and says that something is missing."""
    digest = json.loads(PACKAGED.read_text())["scorer"]["digest"]
    (copy / FILE).write_text(content.replace("D", digest))
    page = draw_report(copy).read_text()
    assert "is not shown: cannot read the audit" in page or "The scorer&#39;s audit cannot be shown" in page


def test_another_scorer_was_not_audited(copy):
    """Scores of a scorer without an audit are not judged by another's."""
    report = copy / "base" / "gate" / "report.json"
    content = json.loads(report.read_text())
    content["scorer"]["digest"] = "sha256:" + "5" * 64
    report.write_text(json.dumps(content))
    found = audit(read_run(copy))
    assert found is not None and found.accuracy is None and "was not audited" in found.words
    assert "was not audited" in draw_report(copy).read_text()
