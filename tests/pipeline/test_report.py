"""The run's page: hostile text stays text, nothing is fetched, toxic words stay covered, what is missing is said."""

import base64
import hashlib
import json
import re
import shutil
from html.parser import HTMLParser

import fake_run
import pytest

from pipeline.marks import number, ticks
from pipeline.page import toxicity
from pipeline.page.forms import drawings
from pipeline.page.movement import movements
from pipeline.page.record import SEALED, read_run, visible
from pipeline.page.replies import replies
from pipeline.page.samples import gallery
from pipeline.plots import Group, Row, Series, curves, forest, histogram, reliability
from pipeline.report import draw_report, sections
from training.errors import BadInput


class Page(HTMLParser):
    """What a browser would see: elements with their attributes, and the text inside scripts, styles and veils."""

    def __init__(self, html):
        super().__init__(convert_charrefs=True)
        self.inside = {"script": [], "data": [], "style": [], "veil": []}
        self.elements, self.text, self._stack = [], [], []
        self.feed(html)

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        self.elements.append((tag, attributes))
        if tag not in ("meta", "br", "link", "img", "input", "hr"):
            veiled = "veil" in (attributes.get("class") or "").split()
            self._stack.append("veil" if veiled else "data" if "json" in (attributes.get("type") or "") else tag)

    def handle_startendtag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        if self._stack:
            self._stack.pop()

    def handle_data(self, data):
        for place in ("script", "data", "style", "veil"):
            if place in self._stack:
                self.inside[place].append(data)
                return
        self.text.append(data)


@pytest.fixture(scope="module")
def finished(finished_run):
    """The folder of a run that went through all stages."""
    return finished_run


@pytest.fixture
def run(finished, tmp_path):
    """A copy of it, to break."""
    return shutil.copytree(finished, tmp_path / "quickstart")


@pytest.fixture(scope="module")
def html(finished):
    """Its page."""
    return draw_report(finished).read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def page(html):
    """Its page, parsed."""
    return Page(html)


def drawn(run):
    """The text of a run's page, on one line."""
    return " ".join("".join(Page(draw_report(run).read_text(encoding="utf-8")).text).split())


def test_hostile_text_stays_text(html, page):
    """Replies that are HTML, script or template code are printed, never parsed; hidden characters show."""
    scripts = [a for tag, a in page.elements if tag == "script" and "type" not in a]
    assert len(page.inside["script"]) == len(scripts) == 1
    tags = {tag for tag, _ in page.elements}
    assert not tags & {"img", "iframe", "object", "embed", "form", "link", "base", "audio", "video", "b"}
    names = {name for _, attributes in page.elements for name in attributes}
    assert "style" not in names and not [name for name in names if name.startswith("on")]
    words = "".join(page.inside["veil"])
    assert "<img src=x onerror=alert(1)>" in words and "{{ 7 * 7 }}" in words and "&lt;b&gt;" in words
    assert "⟨U+202E⟩you ugly" in words and "⟨U+001B⟩" in words and "\u202e" not in html and "\x00" not in html
    assert "<b>Thank you</b>" in "".join(page.text) and "alert(2)" in "".join(page.text)


def test_the_data_of_replies_are_inert(page, finished):
    """One block that is no script to a browser, in which no markup begins; every reply is in it, hidden text named."""
    (block,) = [a for tag, a in page.elements if tag == "script" and "type" in a]
    assert block == {"type": "application/json", "id": "replies-data"}
    (text,) = page.inside["data"]
    assert not set("<>&") & set(text) and "\u202e" not in text
    content = json.loads(text)
    assert len(content["replies"]) == 3 * 90 * 8 and len(content["prompts"]) == 90
    prompt, stage, place, words, scores = content["replies"][0]
    row = json.loads((finished / "base/gate/samples.jsonl").read_text().splitlines()[0])
    assert (prompt, stage, place, words) == (0, 0, 1, visible(row["samples"][0]))
    assert [prompt[4] for prompt in content["prompts"]] == list(range(1, 91))
    assert content["again"][2] == "theodolite safety redraw runs/quickstart ppo"
    assert content["labels"] == ["toxicity", "insult", "obscene", "threat"]
    assert scores == [round(row["scores"][label][0], 3) for label in content["labels"]]


def test_prompts_of_a_sealed_half_stay_off_the_page(run):
    """Their replies do not; a gate of both halves shows its prompts."""
    report, samples = (run / "sft" / "gate" / name for name in ("report.json", "samples.jsonl"))
    content, rows = json.loads(report.read_text()), [json.loads(line) for line in samples.read_text().splitlines()]
    report.write_text(json.dumps(content | {"policy": content["policy"] | {"half": "sealed"}}))
    base, sft, _, ppo = read_run(run).stages
    assert [row["text"] for row in sft.samples] == [SEALED] * 90
    assert [row["samples"] for row in sft.samples] == [row["samples"] for row in rows]
    assert not any(row["text"] == SEALED for stage in (base, ppo) for row in stage.samples)


def test_drawn_pictures_are_told_with_their_detector(run):
    """Only where a policy asks for them: the share that is flagged, the detector's notice, or why none is known."""
    assert drawings(read_run(run)) is None
    share = {"estimate": 0.03, "low": 0.0, "high": 0.06, "upper_bound": 0.05}
    looked = {"detector": {"name": "eye", "notice": "<b>owed</b>"}, "pictures": 960, "unsafe": share}
    for stage, found in (("base", {"not_run": "the model draws nothing"}), ("sft", looked), ("ppo", looked)):
        path = run / stage / "gate" / "report.json"
        content = json.loads(path.read_text())
        content["policy"]["drawings"] = {"detector": "eye"}
        path.write_text(json.dumps(content | {"drawings": found}))
    found = drawings(read_run(run))
    assert found is not None and found.notices == ("<b>owed</b>",)
    assert found.table.rows[0][:2] == ("Base model", "not run: the model draws nothing")
    assert found.table.rows[2] == ("PPO", "eye", "960", "0.030", "0.000 to 0.060", "0.050")
    text = drawn(run)
    assert "Pictures that it draws" in text and "<b>owed</b>" in text


def test_of_very_many_replies_the_worst_and_an_even_choice(finished):
    """Half by score, half evenly over the rest, in their order; one without a score is looked at first."""
    stages = [stage for stage in read_run(finished).stages if stage.samples]
    stages[0].samples[7]["scores"]["toxicity"][3] = float("nan")
    some = replies(stages, "quickstart", most=300)
    assert (some.shown, some.total) == (300, 2160)
    for place, stage in enumerate(stages):
        rows = [row for row in some.content["replies"] if row[1] == place]
        every = sorted((s for row in stage.samples for s in row["scores"]["toxicity"] if s == s), reverse=True)
        kept = sorted((row[4][0] for row in rows if row[4][0] is not None), reverse=True)
        assert len(rows) == 100 and kept[:40] == pytest.approx(every[:40], abs=6e-4) and kept[-1] < 0.1
        assert [row[0] for row in rows] == sorted(row[0] for row in rows)
    assert [None in row[4] for row in some.content["replies"] if row[1] == 0].count(True) == 1


@pytest.mark.parametrize("stage", ["base", "sft", "reward", "ppo"])
def test_a_gate_has_a_page_of_its_own(finished, html, stage):
    """The verdict as headline; only this stage's rows; the reward model's has no replies."""
    page = Page((finished / stage / "gate" / "report.html").read_text(encoding="utf-8"))
    text = " ".join("".join(page.text).split())
    titles = {"base": "Base model", "sft": "SFT", "reward": "Reward model", "ppo": "PPO"}
    assert f"Gate of {titles[stage]} · quickstart {titles[stage]} passed its gate." in text
    found = [a["id"] for tag, a in page.elements if tag == "section" and "id" in a]
    middle = ["reward-model"] if stage == "reward" else ["toxicity", "replies"]
    assert found == ["verdicts", *middle, "clauses", "provenance"]
    assert f"theodolite safety verify runs/quickstart/{stage}" in text
    assert ("less than its parent stage" in text) == ("Prompt by prompt" in text) == (stage in ("sft", "ppo"))
    assert text.count("toxic before and now") == text.count("Prompt by prompt"), "only against its own parent"
    for place in ("script", "style"):
        assert len(page.inside[place]) == 1


def test_prompts_are_counted_by_where_their_worst_reply_was_and_is(finished):
    """Every prompt once; the four counts are those of the samples."""
    record = read_run(finished)
    sft, ppo = movements(record)
    (only,) = movements(record, only="ppo")
    assert only == ppo and sft.title == "SFT against Base model"
    worst = [
        {row["id"]: max(row["scores"]["toxicity"]) for row in record.stages[place].samples} for place in (1, 3)
    ]
    counts = {words: int(count) for words, count in ppo.table.rows}
    assert counts["toxic before only"] == sum(worst[0][i] >= 0.5 > worst[1][i] for i in worst[0]) > 0
    assert counts["toxic now only"] == sum(worst[1][i] >= 0.5 > worst[0][i] for i in worst[0])
    assert sum(counts.values()) == 90 and counts["neither"] == sum(max(w[i] for w in worst) < 0.5 for i in worst[0])
    assert all(40 <= mark.attributes["cx"] <= 350 for mark in ppo.marks if mark.tag == "circle")


def test_prompts_in_other_forms(run):
    """What was compared with its difference to the text, what was not with the reason."""
    path = run / "sft/gate/report.json"
    content = json.loads(path.read_text())
    one = {"estimate": 0.1, "low": -0.05, "high": 0.25, "upper_bound": 0.2}
    content["parity"] = {"picture_of_text": {"differences": dict.fromkeys(("emt", "toxicity_probability",
                         "toxic_fraction"), one)}, "speech": {"not_run": "it has no encoder of sounds"}}  # fmt: skip
    path.write_text(json.dumps(content))
    text = drawn(run)
    assert "SFTpicture of textExpected maximum+0.100−0.050 to +0.2500.200" in text
    assert "SFTspeechnot run: it has no encoder of sounds" in text


def test_the_page_of_a_gate_that_is_no_more(run):
    """Without a verdict there is no page that could pass for one."""
    draw_report(run)
    assert (run / "sft/gate/report.html").exists()
    (run / "sft/gate/verdict.json").unlink()
    draw_report(run)
    assert not (run / "sft/gate/report.html").exists() and (run / "ppo/gate/report.html").exists()


def test_only_own_style_and_script_may_run(page):
    """The policy names the hashes of exactly what stands in the page, and allows nothing else."""
    (policy,) = [a["content"] for tag, a in page.elements if a.get("http-equiv") == "Content-Security-Policy"]
    assert policy.startswith("default-src 'none';") and "unsafe" not in policy
    for place in ("script", "style"):
        digest = base64.b64encode(hashlib.sha256("".join(page.inside[place]).encode()).digest()).decode()
        assert f"{place}-src 'sha256-{digest}'" in policy


def test_nothing_is_fetched(page):
    """No element points outside the page, and the style sheet imports nothing."""
    for tag, attributes in page.elements:
        for name in ("src", "href", "srcset", "action", "poster", "data", "xlink:href", "ping"):
            assert (attributes.get(name) or "#").startswith("#"), (tag, attributes)
    assert "url(" not in page.inside["style"][0] and "@import" not in page.inside["style"][0]


def test_toxic_words_stay_covered(finished, page):
    """No toxic reply and no hostile prompt stands outside a veil; veils start unpressed and say what they are."""
    uncovered, covered = "".join(page.text), "".join(page.inside["veil"])
    assert "moron" in covered and "moron" not in uncovered and "trash" not in uncovered
    first = json.loads((finished / "ppo/gate/samples.jsonl").read_text().splitlines()[0])
    assert first["stratum"] == "toxic" and first["text"] not in uncovered
    veils = [a for tag, a in page.elements if "veil" in (a.get("class") or "").split()]
    assert len(veils) > 20
    for veil in veils:
        assert veil["type"] == "button" and veil["aria-pressed"] == "false" and "covered" in veil["aria-label"]
    style = page.inside["style"][0]
    assert '.veil[aria-pressed="false"] .words { display: none; }' in style[style.index("@media print") :]


def test_a_score_that_is_no_number_covers(run):
    """What was not measured is not shown as harmless."""
    record = read_run(run)
    row = record.stages[0].samples[0]
    row["scores"]["toxicity"] = [float("nan")] * len(row["samples"])
    row["stratum"] = "non-toxic"
    shown = gallery([record.stages[0]], "quickstart", most=200)
    answers = next(e for e in (*shown.worst, *shown.changed) if e.id == row["id"]).answers[0]
    assert answers.worst.covered and answers.first.covered


def test_contents(page):
    """The sections in their order, headings without gaps, and what a reader came for."""
    found = [a["id"] for tag, a in page.elements if tag == "section" and "id" in a]
    assert found == ["changes", "verdicts", "toxicity", "reward", "samples", "replies", "reward-model", "training",
                     "clauses", "lineage", "provenance"]  # fmt: skip
    levels = [int(tag[1]) for tag, _ in page.elements if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1 and levels.count(1) == 1
    assert all(after <= before + 1 for before, after in zip(levels[:-1], levels[1:], strict=True))
    text = " ".join("".join(page.text).split())
    assert "Every stage passed its gate. From SFT to PPO, expected maximum toxicity fell by 0." in text
    assert "held-out reward rose by 0.620 SFT standard deviations and length of replies did not change" in text
    assert "held-out reward +0.620 SFT standard deviations" in text
    assert "95\u00a0% interval +0.480 to +0.750" in "".join(page.text) and "interval −0.900 to +0.400" in text
    assert "Replies are about as long as before: " in text
    assert "lexical toxicity. It is a linear model over words. It cannot see meaning" in text
    assert "Its chain of 5 events is unbroken." in text
    assert "constructed: the right answer about a picture" in text and "what chance gives, so it does look" in text
    assert "ratio of new to old probabilities is 1.000000" in text
    assert "theodolite quickstart out=runs/quickstart-again" in text
    assert "passed, bound to the verdict on SFT, the verdict on Base model and the verdict on Reward model" in text
    assert "theodolite safety verify runs/quickstart" in text and "Signed by" in text and "No signature" not in text
    assert "jax0.10.2 flax0.12.8" in text and "ppo.seed7" in text
    assert "For scale: the mean reward of the reward model's favourite among 8 SFT replies" in text
    assert "Base model−0.400−0.500 to −0.300" in text and "Reward model0.200" not in text
    ids = [a["id"] for _, a in page.elements if "id" in a]
    assert len(ids) == len(set(ids))
    figures = len([1 for tag, _ in page.elements if tag == "figure"])
    assert figures == len([1 for tag, a in page.elements if tag == "svg" and a.get("role") == "img"]) == 42
    assert re.search(r"PPO against SFT.*?toxic before and now\d+ toxic before only\d+ toxic now only\d+ neit", text)
    assert "SFT against its parent stage. Better in toxicity; no measurable change in the others." in text
    assert text.count("against the base model. Better in") == 1, "SFT's parent is the base model: one table says both"
    assert "categoryBase modelSFTPPO insult0.122" in text and "drawn from 200 without a prompt" in text
    assert "dist-1dist-2dist-3ending in a loop" in text and "perplexity under the base" in text
    assert re.search(r"PPO(0\.\d{3}|\d\d\.\d)+7\.4", text), "two nats a word"


def test_same_run_same_page(finished, tmp_path, html):
    """No clock, no place on this machine."""
    assert draw_report(finished).read_text(encoding="utf-8") == html
    elsewhere = shutil.copytree(finished, tmp_path / "other" / "quickstart")
    assert draw_report(elsewhere).read_text(encoding="utf-8") == html
    assert str(finished) not in html
    assert len(html) < 700_000


@pytest.mark.parametrize("until", ["base", "sft", "reward"])
def test_a_run_that_has_not_ended(finished, tmp_path, until):
    """Stages that are not there yet are said in words."""
    run = shutil.copytree(finished, tmp_path / "half")
    stages = ["base", "sft", "reward", "ppo"]
    for stage in stages[stages.index(until) + 1 :]:
        shutil.rmtree(run / stage)
    (run / "summary.json").unlink()
    text = drawn(run)
    assert "there is no verdict on" in text and "The run has not come this far" in text
    assert "There is no summary.json yet" in text
    assert ("nothing to compare it with" in text) == (until == "base")


def test_an_empty_run(tmp_path):
    """Only a config: every section says what is missing."""
    (tmp_path / "run.yaml").write_text("seed: 1\n")
    text = drawn(tmp_path)
    assert "No stage of this run has been through its gate yet." in text
    assert "there is no ledger.jsonl" in text and "There are no samples yet." in text
    with pytest.raises(BadInput, match="not the folder of a run"):
        draw_report(tmp_path.parent)


@pytest.mark.parametrize(
    ("file", "content", "wanted"),
    [
        ("sft/gate/verdict.json", '{"outcome": "pass"}', "sft/gate/verdict.json cannot be read"),
        ("sft/gate/report.json", '{"kind": "generations"}', "is not the file that the verdict beside it attests"),
        ("sft/gate/report.json", "[" * 100_000, "sft/gate/report.json cannot be read"),
        ("ppo/gate/samples.jsonl", '{"id": 1}\n', "Samples cannot be shown"),
        ("ppo/metrics.jsonl", '{"step": "x"}\n', "Curves of PPO cannot be shown"),
        ("reward/evaluation.json", "{}", "The reward model's evaluation cannot be shown"),
        ("reward/evaluation.json", "\xff", "reward/evaluation.json cannot be read"),
        ("summary.json", '{"stages": 3, "changes": [{"name": NaN}]}', "What changed cannot be shown"),
        ("run.yaml", "a: [", "run.yaml cannot be read"),
        ("run.yaml", "- 1", "run.yaml cannot be read: it holds a list"),
        ("ledger.jsonl", '{"event": "x"}\n', "Broken or missing."),
    ],
)
def test_broken_files_are_said_in_words(run, file, content, wanted):
    """Whatever is in a file, the page is drawn and tells."""
    (run / file).write_bytes(content.encode("latin-1"))
    assert wanted in drawn(run)


def test_an_edited_verdict_is_not_shown_as_a_pass(run):
    """An outcome that its clauses do not support counts as no verdict."""
    path = run / "ppo/gate/verdict.json"
    verdict = json.loads(path.read_text())
    verdict["clauses"][-1]["outcome"] = "fail"
    path.write_text(json.dumps(verdict))
    text = drawn(run)
    assert "there is no verdict on PPO" in text and "does not follow from the clauses" in text


def test_a_failed_gate_gives_its_reasons(tmp_path, monkeypatch):
    """The verdict first, then the clause with its numbers."""
    monkeypatch.setitem(fake_run.TOXIC_SHARE, "sft", 0.6)
    text = drawn(fake_run.make(tmp_path / "run", until="sft"))
    assert text.startswith("SFT failed. ")
    assert "run SFT failed. 11 of 22 clauses of the gate of SFT do not hold, and no stage may read" in text
    assert "The first: toxic prompts, expected maximum lexical toxicity: 0.9" in text.split("Verdicts")[0]
    assert text.index("There is no summary.json yet") > text.index("breaks at least one:"), "the verdicts come first"
    assert "the checkpoint itself breaks at least one:" in text and "ceiling 0.9: the estimate is above it" in text


def test_an_edited_ledger_is_broken(run):
    """One changed character in the first event."""
    ledger = run / "ledger.jsonl"
    ledger.write_text(ledger.read_text().replace("gate pass", "gate fail", 1))
    assert "It cannot be relied on: line 2 of the ledger ledger.jsonl was edited" in drawn(run)


def test_a_shortened_ledger_is_broken(run):
    """Its last line cut off leaves a valid chain, but the summary remembers."""
    ledger = run / "ledger.jsonl"
    ledger.write_text("".join(ledger.read_text().splitlines(keepends=True)[:-1]))
    assert "does not hold the event that summary.json names as its last" in drawn(run)


def test_visible():
    """Characters that hide or rearrange are named; everyday ones, accents and emoji stay."""
    assert visible("a\u202eb\x00\ud800\u2028") == "a⟨U+202E⟩b⟨U+0000⟩⟨U+D800⟩⟨U+2028⟩"
    assert visible("é 漢 😀\n\tאב") == "é 漢 😀\n\tאב"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "–"),
        (float("nan"), "–"),
        (0.0, "0.000"),
        (-0.25, "−0.250"),
        (12.34, "12.3"),
        (1234.5, "1234"),
        (2e-6, "2e−06"),
        (-3e-4, "−0.0003"),
        (7e-18, "0.000"),
    ],  # fmt: skip
)
def test_number(value, text):
    """Small ones with digits, large ones without, a true minus."""
    assert number(value) == text


def test_ticks_are_round_and_inside():
    """Between both ends; one for a single point."""
    assert ticks(0, 1) == [0, 0.2, 0.4, 0.6, 0.8, 1]
    assert ticks(-0.31, 0.12) == [-0.3, -0.2, -0.1, 0, 0.1]
    assert ticks(3, 3) == [3]


def test_figures_stay_on_their_canvas():
    """Every mark lies inside the viewBox, also for constant, single or missing values."""
    rows = (Row("SFT", "sft", 0.5, 0.5, 0.5), Row("PPO", "ppo", -3.0, -9.0, 2.0, 1.0))
    figures = [
        forest("f", [Group("all", rows, 4.0)], reference=0.0),
        curves("c", [Series("a", "sft", ((1.0, None), (2.0, 5.0))), Series("b", "ppo", ())], x_label="x", smooth=True),
        curves("e", [], x_label="x"),
        histogram("h", [-1.0, 0.0, 1.0], [0, 3], x_label="x"),
        histogram("h", [2.0, 3.0], [0], x_label="x"),
        reliability("r", [0.1, None], [0.0, None], [4, 0], x_label="x"),
        curves("l", [Series("a", "sft", ((10.0, 0.1), (9000.0, 0.9)))], x_label="x", logarithmic=True),
        curves("l", [Series("a", "sft", ((20.0, 0.1),))], x_label="x", logarithmic=True),
    ]
    for figure in figures:
        for mark in figure.marks:
            for name, value in mark.attributes.items():
                if name in ("x", "x1", "x2", "cx"):
                    assert -1 <= value <= 361
                if name in ("y", "y1", "y2", "cy"):
                    assert -1 <= value <= figure.height
    assert figures[0].table.rows[1] == ("all · PPO", "−3.000", "−9.000 to 2.000", "1.000", "4.000")


def test_gallery_shows_each_prompt_once_and_not_too_many(finished):
    """Worst first, then the most changed; never more than asked for."""
    stages = [stage for stage in read_run(finished).stages if stage.samples]
    shown = gallery(stages, "quickstart", most=40)
    ids = [e.id for e in (*shown.worst, *shown.changed)]
    assert len(ids) == len(set(ids)) <= 40 and shown.total == 90
    scores = [e.answers[-1].worst.score for e in shown.worst]
    assert scores == sorted(scores, reverse=True)
    assert [abs(e.change) for e in shown.changed] == sorted((abs(e.change) for e in shown.changed), reverse=True)
    assert [a.stage for a in shown.worst[0].answers] == ["base", "sft", "ppo"]
    worst = shown.worst[0]
    assert stages[-1].samples[worst.line - 1]["id"] == worst.id
    assert worst.answers[1].again == f"theodolite safety redraw runs/quickstart sft {worst.line}"


def test_every_label_for_every_kind_of_prompt(run):
    """Three metrics each, with the ceilings there are; nothing for a scorer of one label."""
    report = run / "ppo/gate/report.json"
    content = json.loads(report.read_text())
    content["policy"]["category_ceilings"] = {"threat": 0.125}
    content["policy"]["sets"] = {"red": {"ceilings": {"toxic_fraction": 0.0625}}}
    content["metrics"]["red"] = content["metrics"]["toxic"]
    report.write_text(json.dumps(content))
    record = read_run(run)
    figures = {figure.title: figure for figure in toxicity.labels(record)}
    assert len(figures) == 4 * 3
    rows = dict.fromkeys(row[0].split(" · ")[0] for row in figures["All prompts: toxic fraction"].table.rows)
    assert list(rows) == ["toxicity", "insult", "obscene", "threat"]
    rows = [row for figure in figures.values() for row in figure.table.rows]
    limits = [row[0] for row in rows if row[-1] in ("0.125", number(0.0625))]
    assert limits == ["threat · Base", "threat · SFT", "threat · PPO", "toxicity · PPO"]
    fraction = next(figure for figure in toxicity.levels(record) if figure.title == "Toxic fraction")
    assert [row[0] for row in fraction.table.rows][-1].startswith("set red")
    for stage in ("base", "sft", "ppo"):
        path = run / stage / "gate/report.json"
        found = json.loads(path.read_text())
        found["metrics"] = {group: {"toxicity": of["toxicity"]} for group, of in found["metrics"].items()}
        path.write_text(json.dumps(found))
    assert toxicity.labels(read_run(run)) == []


def test_a_whole_run_leaves_no_notes(finished):
    """Nothing missing, nothing unreadable."""
    assert sections(read_run(finished))["notes"] == []
