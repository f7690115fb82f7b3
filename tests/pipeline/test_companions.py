"""What a run leaves beside its page: report.json and samples.jsonl by their schemas, junit.xml, the model card."""

import json
import shutil
from xml.etree import ElementTree

import fake_run
import jsonschema
import pytest
from huggingface_hub import ModelCard

from pipeline import config_files
from pipeline.card import markdown_table, plain
from pipeline.commands import report as command
from pipeline.marks import Table
from pipeline.report import draw_report

PAYLOAD = "</td><script>alert(1)</script> | `x` [a](javascript:alert(1))\n# \x1b heading & *more*"


@pytest.fixture
def run(finished_run, tmp_path):
    return shutil.copytree(finished_run, tmp_path / "quickstart")


@pytest.fixture(scope="module")
def failed(tmp_path_factory):
    """A run whose SFT stage failed."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(fake_run.TOXIC_SHARE, "sft", 0.6)
        return fake_run.make(tmp_path_factory.mktemp("runs") / "failed", until="sft")


def validator(name):
    schema = json.loads((config_files.FOLDER / name).read_text(encoding="utf-8"))
    jsonschema.Draft202012Validator.check_schema(schema)
    return jsonschema.Draft202012Validator(schema)


def wrong(schema, content):
    """Where a content is not as its schema says, without printing all of it."""
    return [f"{list(error.absolute_path)}: {error.message[:200]}" for error in schema.iter_errors(content)]


def test_reports_and_samples_are_what_their_schemas_say(finished_run):
    """Every gate's; a field too few, one too many inside, a share above 1 or another kind is none."""
    reports, lines = validator("report.schema.json"), validator("samples.schema.json")
    for stage in ("base", "sft", "reward", "ppo"):
        assert wrong(reports, json.loads((finished_run / stage / "gate" / "report.json").read_text())) == []
    content = json.loads((finished_run / "ppo/gate/report.json").read_text())
    assert content["categories"]["parent"] and content["unprompted"] and content["perplexity"]
    assert wrong(reports, {key: value for key, value in content.items() if key != "clauses"})
    assert wrong(reports, content | {"kind": "other"}) and wrong(reports, content | {"scorer": {"name": "x"}})
    content["metrics"]["all"]["toxicity"]["emt"]["high"] = 1.5
    (error,) = wrong(reports, content)
    assert error.startswith("['metrics', 'all', 'toxicity', 'emt', 'high']")
    content["metrics"]["all"]["toxicity"]["emt"] |= {"high": 1.0, "further": 1}
    assert "'further' was unexpected" in wrong(reports, content)[0]
    rows = [json.loads(line) for line in (finished_run / "ppo/gate/samples.jsonl").read_text().splitlines()]
    assert len(rows) == 90 and [error for row in rows for error in wrong(lines, row)] == []
    assert lines.is_valid(rows[0] | {"challenging": True}) and not lines.is_valid(rows[0] | {"scores": [0.5]})


def test_junit(run):
    """Every clause is a case; what does not apply is skipped; the sums are right."""
    draw_report(run)
    root = ElementTree.parse(run / "junit.xml").getroot()
    assert [suite.get("name") for suite in root] == ["base", "sft", "reward", "ppo"]
    for suite in root:
        verdict = json.loads((run / suite.get("name") / "gate" / "verdict.json").read_text())
        assert int(suite.get("tests")) == len(verdict["clauses"]) == len(suite.findall("testcase"))
        assert suite.find("properties/property[@name='outcome']").get("value") == "pass"
    assert int(root.get("tests")) == sum(int(suite.get("tests")) for suite in root)
    assert (root.get("failures"), root.get("errors")) == ("0", "0") and int(root.get("skipped")) >= 2


def test_junit_of_what_failed_and_of_what_was_not_judged(failed, tmp_path):
    """A failing clause is a failure with its reason; a checkpoint without a verdict is an error, never a pass."""
    run = shutil.copytree(failed, tmp_path / "run")
    (run / "base" / "gate" / "verdict.json").write_text("{}")
    draw_report(run)
    base, sft, reward, _ = ElementTree.parse(run / "junit.xml").getroot()
    assert base.find("testcase/error").get("message") == "there is a checkpoint, but no valid verdict about it"
    assert reward.find("testcase/skipped").get("message") == "the run has not come this far"
    reasons = [case.find("failure").get("message") for case in sft if case.find("failure") is not None]
    assert int(sft.get("failures")) == len(reasons) > 0 and "the estimate is above it" in reasons[0]


def test_the_model_card_is_one_that_the_hub_reads(run):
    """Front matter by huggingface_hub's own reader, figures as in report.json, the table for people."""
    draw_report(run)
    card, content = ModelCard.load(run / "model_card.md"), json.loads((run / "ppo/gate/report.json").read_text())
    assert card.data.pipeline_tag == "text-generation" and "toxicity" in card.data.tags
    found = {(r.dataset_name.split(": ")[1], r.metric_type): r.metric_value for r in card.data.eval_results}
    assert len(found) == 9
    for group in ("toxic", "non-toxic", "all"):
        emt = content["metrics"][group]["toxicity"]["emt"]["estimate"]
        assert found[group, "expected_maximum_toxicity"] == pytest.approx(emt, abs=1e-4)
    text = card.text
    assert text.startswith("# quickstart, PPO") and "This model **passed** its toxicity gate" in text
    assert "| metric | of | estimate | 95 % interval | one-sided bound | ceiling |" in text
    assert "| Expected maximum | toxic prompts · PPO | 0." in text and "against the base model · PPO" in text
    assert "PPO against its parent stage, by category: Better in toxicity" in text
    assert "It is a linear model over words." in text and content["prompts"]["digest"] in text
    assert str(run) not in text and "\n\n\n\n" not in text


def test_the_card_of_a_model_that_failed_says_so(failed):
    draw_report(failed)
    text = (failed / "model_card.md").read_text(encoding="utf-8")
    assert "This model **did not pass** its toxicity gate (failed)" in text and "the estimate is above it" in text


def test_a_card_of_broken_files_is_none(run):
    """What cannot be read is not guessed, and the card of earlier files does not stay."""
    draw_report(run)
    path = run / "ppo/gate/report.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"metrics": {"all": 3}}))
    draw_report(run)
    assert not (run / "model_card.md").exists()


def test_text_of_others_stays_text():
    """In Markdown, in its tables, in the HTML that it becomes."""
    assert plain(PAYLOAD) == (
        "&lt;/td&gt;&lt;script&gt;alert\\(1\\)&lt;/script&gt; \\| \\`x\\` \\[a\\]\\(javascript:alert\\(1\\)\\)"
        " \\# \x1b heading &amp; \\*more\\*"
    )
    lines = markdown_table(Table(("a", "b"), ((PAYLOAD, "1"), ("x",)))).splitlines()
    assert len(lines) == 4 and lines[1] == "| --- | --- |" and lines[3] == "| x |  |"


def test_hostile_names_in_card_and_junit(run):
    """A prompt set's name and a reason are whatever a file says."""
    path = run / "ppo/gate/report.json"
    content = json.loads(path.read_text())
    content["prompts"]["sets"] = [{"source": PAYLOAD, "licence": PAYLOAD, "digest": "x", "prompts": 3}]
    path.write_text(json.dumps(content))
    verdict = json.loads((run / "sft/gate/verdict.json").read_text())
    next(c for c in verdict["clauses"] if c["outcome"] == "not applicable" or c)["reason"] = PAYLOAD
    (run / "sft/gate/verdict.json").write_text(json.dumps(verdict))
    draw_report(run)
    card = ModelCard.load(run / "model_card.md")
    assert "<script" not in card.text and "](javascript" not in card.text and "\x1b" not in card.text
    assert ElementTree.parse(run / "junit.xml").getroot().get("name") == "quickstart"


@pytest.mark.parametrize(("works", "said"), [(True, 1), (False, 2)])
def test_the_page_is_shown_in_the_browser(run, monkeypatch, capsys, works, said):
    shown = []
    monkeypatch.setattr("webbrowser.open", lambda address: shown.append(address) or works)
    command.report(command.Report(run=str(run)))
    assert shown == [] and capsys.readouterr().out == f"{run / 'report.html'}\n"
    command.report(command.Report(run=str(run), open=True))
    assert shown == [(run / "report.html").as_uri()] and len(capsys.readouterr().out.splitlines()) == said
