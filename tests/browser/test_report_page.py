"""The run's page in Chromium: it loads nothing, says nothing to the console, and is read by eye, by keyboard, on paper.

Skipped where no Chromium can be started. `make test` installs one where the machine has none and a network is there.
"""

import json
import shutil
from pathlib import Path

import fake_run
import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Error, sync_playwright

from pipeline.page.record import visible
from pipeline.report import draw_report
from safety.scorers.audit import PACKAGED as AUDIT

INSTALLED = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
# What a model might write to get out of its place on the page: markup, scripts, templates, JSON, control characters.
PAYLOADS = json.loads((Path(__file__).parents[1] / "fixtures" / "injections.json").read_text(encoding="utf-8"))
WCAG = {"runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"], "resultTypes": ["violations"]}


@pytest.fixture(scope="module")
def browser():
    """A headless Chromium: the one that Playwright installed, or the system's."""
    reasons = []
    with sync_playwright() as playwright:
        for path in (None, *filter(None, map(shutil.which, INSTALLED))):
            try:
                found = playwright.chromium.launch(executable_path=path)
            except Error as error:
                reasons.append(str(error).splitlines()[0])
                continue
            yield found
            found.close()
            return
    pytest.skip(f"no Chromium can be started ({'; '.join(reasons)}); try: playwright install --with-deps chromium")


@pytest.fixture(scope="module")
def finished(finished_run):
    draw_report(finished_run)
    return finished_run


@pytest.fixture(scope="module")
def hostile(finished, tmp_path_factory):
    """The same run with hostile text wherever its files hold text."""
    run = shutil.copytree(finished, tmp_path_factory.mktemp("runs") / "hostile")
    for stage in ("base", "sft", "ppo"):
        path = run / stage / "gate" / "samples.jsonl"
        rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        for number, row in enumerate(rows):
            payload = PAYLOADS[number % len(PAYLOADS)]
            row |= {"text": payload, "source": payload, "samples": [payload] * len(row["samples"])}
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        parity_and_drawings(run / stage / "gate" / "report.json")
    audited = json.loads(AUDIT.read_text(encoding="utf-8"))
    many = [" ".join(PAYLOADS[part::4]) for part in range(4)]  # in a few plots and rows: each is drawn once more
    audited["data"] = [audited["data"][0] | {"name": text} for text in many]
    audited["identity_bias"]["terms"] = [audited["identity_bias"]["terms"][0] | {"term": t, "group": t} for t in many]
    (run / "scorer_audit.json").write_text(json.dumps(audited))
    with (run / "ppo" / "metrics.jsonl").open("a") as file:
        file.write(json.dumps({"step": 41, PAYLOADS[1]: 1.0}) + "\n")
    summary, evaluation = (json.loads((run / name).read_text()) for name in ("summary.json", "reward/evaluation.json"))
    for change, payload in zip(summary["changes"], PAYLOADS[:7], strict=False):
        change |= {"name": payload, "unit": payload}
    summary["stages"]["reward"]["note"] = PAYLOADS[0]
    (run / "summary.json").write_text(json.dumps(summary))
    evaluation["by_source"][PAYLOADS[3]] = evaluation["by_source"].pop("rated")
    (run / "reward" / "evaluation.json").write_text(json.dumps(evaluation))
    (run / "run.yaml").write_text(f"# </pre>{PAYLOADS[0]}\nname: '</pre>{PAYLOADS[0]}'\n")
    (run / "ledger.jsonl").write_text(json.dumps({"event": PAYLOADS[0]}) + "\n")
    draw_report(run)
    return run


def parity_and_drawings(path):
    """Has a gate's report say that forms were compared, by each hostile name, and pictures looked at."""
    content = json.loads(path.read_text(encoding="utf-8"))
    interval = {"estimate": 0.01, "low": -0.02, "high": 0.04, "upper_bound": 0.03}
    compared = {"differences": dict.fromkeys(("emt", "toxicity_probability", "toxic_fraction"), interval)}
    content["parity"] = {"picture_of_text": compared} | {text: {"not_run": text} for text in PAYLOADS}
    detector = {"name": " ".join(PAYLOADS), "version": "1", "digest": "sha256:", "notice": " ".join(PAYLOADS)}
    content["policy"]["drawings"] = {"detector": "x"}
    content["drawings"] = {"detector": detector, "pictures": 8, "unsafe": interval}
    path.write_text(json.dumps(content), encoding="utf-8")


@pytest.fixture(scope="module")
def unfinished(tmp_path_factory):
    """A run whose SFT stage failed: reasons in red, notes, missing sections."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(fake_run.TOXIC_SHARE, "sft", 0.6)
        run = fake_run.make(tmp_path_factory.mktemp("runs") / "failed", until="sft")
    (run / "sft" / "metrics.jsonl").write_text('{"step": "x"}\n')
    draw_report(run)
    return run


@pytest.fixture
def visit(browser):
    """Opens a run's page. At the end it must have asked for nothing but itself, and told the console nothing."""
    contexts, asked, told = [], [], []

    def open_page(run: Path, *, width=1280, place="report.html", **options):
        context = browser.new_context(viewport={"width": width, "height": 900}, **options)
        context.set_default_timeout(120_000)  # a busy machine is no failure
        contexts.append(context)
        address = (run / place).as_uri()

        def only_itself(route):
            asked.append(route.request.url)
            route.continue_() if route.request.url == address else route.abort()

        context.route("**/*", only_itself)
        page = context.new_page()
        page.on("console", lambda message: told.append(f"{message.type}: {message.text}"))
        page.on("pageerror", lambda error: told.append(str(error)))
        page.on("dialog", lambda dialog: told.append(dialog.message))
        page.goto(address)
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert told == []
    assert [url for url in asked if not url.endswith("/report.html")] == [] and len(asked) == len(contexts)


def unfold(page):
    """Opens every fold and uncovers everything."""
    page.evaluate("for (const fold of document.querySelectorAll('details')) fold.open = true")
    if page.locator("button.all").count():
        page.locator("button.all").first.click()


def every_reply(page):
    """The words of all prompts and replies, leaf by leaf."""
    shown = set()
    while True:
        shown |= set(page.evaluate("[...document.querySelectorAll('#replies .words')].map(words => words.textContent)"))
        if page.locator("#replies-on").is_disabled():
            return shown
        page.locator("#replies-on").click()


def tab_to(page, selector, most=400):
    """Presses Tab until the focus is there."""
    for _ in range(most):
        page.keyboard.press("Tab")
        if page.evaluate(f"document.activeElement.matches({json.dumps(selector)})"):
            return page.locator(":focus")
    pytest.fail(f"{selector} cannot be reached by Tab")


def overflowing(page):
    """Elements that reach beyond the right edge, but for those inside of a box that scrolls by itself."""
    return page.evaluate("""() => [...document.querySelectorAll('body *')].filter(element =>
        !element.closest('.scroll, pre, .unseen, .skip') && element.getBoundingClientRect().right > innerWidth + 0.5
    ).map(element => element.outerHTML.slice(0, 200))""")


@pytest.mark.parametrize("run", ["finished", "hostile", "unfinished"])
def test_it_loads_nothing_and_fits_a_small_phone(request, visit, run):
    page = visit(request.getfixturevalue(run), width=360)
    assert page.evaluate("document.documentElement.scrollWidth") <= 360 and overflowing(page) == []
    unfold(page)
    assert page.evaluate("document.documentElement.scrollWidth") <= 360 and overflowing(page) == []
    small = page.evaluate("""() => [...document.querySelectorAll('main *')].filter(element => {
        const text = [...element.childNodes].some(node => node.nodeType === 3 && node.data.trim());
        const drawing = element.ownerSVGElement, drawn = drawing && drawing.viewBox.baseVal.width;
        const shrunk = drawn ? drawing.getBoundingClientRect().width / drawn : 1;
        return text && !element.closest('.unseen') && parseFloat(getComputedStyle(element).fontSize) * shrunk < 11;
    }).map(element => element.outerHTML.slice(0, 200))""")
    assert small == []


def test_hostile_text_stays_text_and_runs_nothing(visit, hostile):
    page = visit(hostile)
    title = page.title()
    unfold(page)
    page.wait_for_timeout(200)
    assert page.evaluate("window.owned") is None and page.title() == title and page.url.endswith("/report.html")
    foreign = "img, iframe, a[href^=javascript], meta[http-equiv=refresh], [autofocus]"
    assert page.locator(foreign).count() == 0 and page.locator("script:not([type])").count() == 1
    assert page.locator("script").count() == 2, "the second one is data"
    assert page.evaluate("""() => [...document.querySelectorAll('*')].flatMap(element =>
        [...element.attributes].map(attribute => attribute.name).filter(name => name.startsWith('on')))""") == []
    gallery = page.evaluate("[...document.querySelectorAll('#samples .words')].map(words => words.textContent)")
    assert len(set(gallery)) > 20 and {text for text in gallery if len(text) < 800} <= {visible(p) for p in PAYLOADS}
    shown = every_reply(page)
    for payload in PAYLOADS:
        text = visible(payload)
        assert (text[:800] if len(text) > 800 else text) in {words[: max(800, len(text))] for words in shown} or any(
            words.startswith(text[:800]) for words in shown
        ), payload
    assert page.evaluate("window.owned") is None and page.locator(foreign).count() == 0
    sections = page.evaluate("""() => Object.fromEntries([...document.querySelectorAll('#toxicity h3')].map(title => {
        let text = "";
        for (let next = title.nextElementSibling; next && next.tagName !== "H3"; next = next.nextElementSibling)
            text += next.textContent;
        return [title.textContent, text];
    }))""")
    for title in ("Pictures and speech", "Pictures that it draws", "What the scorer is worth"):
        missing = [text for text in PAYLOADS if visible(text).strip() not in sections[title]]
        assert missing == [], title
    for place in ("#changes dt", "#training", "#reward-model figure", "#provenance pre", "#reward"):
        texts = page.locator(place).all_text_contents()
        assert any("window.owned" in text for text in texts), place


@pytest.mark.parametrize("key", ["Enter", "Space"])
def test_toxic_words_are_covered_and_revealed_by_keyboard_alone(visit, finished, key):
    page = visit(finished, reduced_motion="reduce")
    veils = page.locator("button.veil")
    assert veils.count() > 20
    filters = veils.evaluate_all("veils => veils.map(veil => getComputedStyle(veil.firstElementChild).filter)")
    assert all(value.startswith("blur(") for value in filters)

    veil = tab_to(page, "button.veil")
    words = veil.locator(".words").text_content()
    tree = veil.aria_snapshot()
    assert "covered; press to read it" in tree and words not in tree and "[pressed]" not in tree
    assert veil.evaluate("veil => getComputedStyle(veil).outlineStyle") == "solid", "the focus shows"
    page.keyboard.press(key)
    assert veil.get_attribute("aria-pressed") == "true" and veil.get_attribute("aria-label") is None
    assert "[pressed]" in veil.aria_snapshot()
    assert page.evaluate("getComputedStyle(document.activeElement.firstElementChild).filter") == "none"
    page.keyboard.press(key)
    assert veil.get_attribute("aria-pressed") == "false" and words not in veil.aria_snapshot()


def test_all_are_uncovered_and_covered_again_at_once(visit, finished):
    page = visit(finished)
    tab_to(page, "button.all")
    for pressed, told in (("true", "Cover everything again"), ("false", "Uncover everything")):
        page.keyboard.press("Enter")
        assert page.locator(f"button.veil:not([aria-pressed={pressed}])").count() == 0
        assert page.locator("button.all").all_text_contents() == [told, told]


def test_without_scripts_toxic_words_stay_covered(visit, finished):
    page = visit(finished, java_script_enabled=False)
    assert page.locator("button.veil[aria-pressed=false]").count() == page.locator("button.veil").count() > 20


def test_replies_are_filtered_searched_and_turned_by_keyboard(visit, finished):
    """By words in prompt or reply, by stage, prompts, score and order; what a leaf shows is covered as elsewhere."""
    page = visit(finished, place="report.html")
    rows = {stage: [json.loads(line) for line in (finished / stage / "gate/samples.jsonl").read_text().splitlines()]
            for stage in ("base", "sft", "ppo")}  # fmt: skip
    every = [(stage, row, place) for stage in rows for row in rows[stage] for place in range(8)]
    said = lambda: page.locator("#replies-range").text_content()  # noqa: E731
    assert said() == f"1 to 20 of {len(every):,} replies" and page.locator("#replies-list li").count() == 20
    tab_to(page, "#replies-query", most=600)
    page.keyboard.type("SOUP butter")
    wanted = sum("soup" in (row["text"] + row["samples"][i]).lower() for _, row, i in every)
    assert said().endswith(f" of {wanted} replies") and wanted > 20
    shown = page.locator("#replies-list .answered").all_text_contents()
    assert all("soup with bread & butter" in text for text in shown)
    page.locator("#replies-query").fill("soup no-such-word")
    assert said() == "No reply is like this." and page.locator("#replies-list li").count() == 0
    page.locator("#replies-query").fill("")

    page.locator("#replies-stage").select_option(label="SFT")
    page.locator("#replies-stratum").select_option(label="non-toxic")
    page.locator("#replies-least").fill("0.5")
    scored = [(row["scores"], i) for stage, row, i in every if stage == "sft" and row["stratum"] == "non-toxic"]
    for label in ("toxicity", "threat"):
        page.locator("#replies-label").select_option(label=label)
        assert said() == f"{sum(scores[label][i] >= 0.5 for scores, i in scored)} replies"
    assert page.locator("#replies-list .answered .veil").count() == page.locator("#replies-list li").count() > 0
    page.locator("#replies-least").fill("0")
    page.locator("#replies-order").select_option("low")
    scores = [float(text.split()[0]) for text in page.locator("#replies-list .about strong").all_text_contents()]
    assert scores == sorted(scores)

    page.locator("#replies-on").focus()
    page.keyboard.press("Enter")
    assert said() == "21 to 40 of 360 replies"
    assert page.evaluate("document.activeElement.id") == "replies-range", "the focus stays at the list"
    page.locator("#replies-order").select_option("score")
    veil = page.locator("#replies-list button.veil").first
    assert veil.get_attribute("aria-pressed") == "false" and "covered" in veil.get_attribute("aria-label")
    veil.click()
    assert veil.get_attribute("aria-pressed") == "true"


def test_without_scripts_replies_say_where_they_are(visit, finished):
    page = visit(finished, place="sft/gate/report.html", java_script_enabled=False)
    assert "samples.jsonl has the same." in page.locator("#replies").inner_text()
    assert not page.locator("#replies-controls").is_visible()


def test_on_paper(visit, finished):
    page = visit(finished)
    covered = page.locator("button.veil .words").first.text_content()
    page.emulate_media(media="print")
    printed = page.locator("body").inner_text()
    for wanted in ("Every stage passed its gate.", "What changed", "Ceilings", "(no. ", "Every digest"):
        assert wanted in printed, wanted
    assert "moron" not in printed and covered not in printed and "Uncover everything" not in printed
    note = "getComputedStyle(document.querySelector('.veil'), '::after').content"
    assert "covered; not printed" in page.evaluate(note)
    folded = page.locator(".clauses .reason, .digests td")
    shown = folded.evaluate_all("cells => cells.filter(cell => cell.checkVisibility() && cell.offsetHeight).length")
    assert shown == folded.count() > 50
    assert not page.locator("#replies").is_visible(), "a list of what is covered says nothing on paper"
    page.locator("#replies button.all").evaluate("button => button.click()")
    assert page.locator("#replies").is_visible() and "moron" in page.locator("#replies").inner_text()
    page.locator("#replies button.all").evaluate("button => button.click()")
    page.locator("button.veil").first.evaluate("veil => veil.click()")
    assert covered in page.locator("body").inner_text(), "what the reader has uncovered is printed"
    assert page.pdf(format="A4").count(b"/Type /Page\n") < 20


@pytest.mark.parametrize(
    ("run", "folded", "options"),
    [
        ("finished", True, {}),
        ("finished", False, {"color_scheme": "dark"}),
        ("hostile", False, {"width": 360}),
        ("unfinished", False, {}),
        ("finished", False, {"place": "sft/gate/report.html"}),
        ("unfinished", False, {"place": "sft/gate/report.html", "width": 360, "color_scheme": "dark"}),
    ],
    ids=["folded", "dark", "narrow", "failed", "gate", "failed gate"],
)
def test_axe_finds_nothing(request, visit, run, folded, options):
    page = visit(request.getfixturevalue(run), **options)
    if not folded:
        unfold(page)
    red = page.evaluate("parseInt(getComputedStyle(document.body).backgroundColor.slice(4))")
    assert (red < 128) == ("color_scheme" in options)
    assert page.evaluate("document.documentElement.scrollWidth") <= options.get("width", 1280)
    # Rows out of sight have no layout until they are scrolled to; their boxes would seem to overlap.
    page.locator(".found li").evaluate_all("rows => rows.forEach(row => row.style.contentVisibility = 'visible')")
    found = Axe().run(page, options=WCAG).response
    assert len(found["passes"]) > 10
    assert [(rule["id"], [node["html"][:200] for node in rule["nodes"]]) for rule in found["violations"]] == []
