"""How quickly does the page of a gate with 20,000 replies open, and how smoothly does it filter? In headless Chromium.

    python benchmarks/page.py

Figures go to benchmarks/results/page.json and from there into docs/report.md. A real gate judges canned replies of the
length that gates draw. Two times are taken: what the page's main thread computes, which does not depend on what else
the machine does, and from an input to the frame that shows its result, which does.
"""

import argparse
import json
import random
import shutil
import statistics
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.parts import result  # noqa: E402
from pipeline.report import draw_report  # noqa: E402
from safety.gate import draw_prompts, gate  # noqa: E402
from safety.policy import standard  # noqa: E402
from safety.prompts import GatePrompt  # noqa: E402
from safety.scorers.lexical import LexicalScorer  # noqa: E402
from training.digest import folder_digest  # noqa: E402

WORDS = (
    "the of and to a in is you that it he was for on are as with his they at be this have from or one had by but not "
    "what all were we when your can said there use an each which she do how their if will up other about out many then "
    "them these so some her would make like him into time has look two more write go see number no way could people "
    "stupid damn idiot garden railway teapot weather mountain"
).split()
# Each is one thing that a reader does; the script runs in the page and says what to set.
ACTIONS = {
    "search a common word": ("query", "time"),
    "search two words": ("query", "garden teapot"),
    "clear the search": ("query", ""),
    "non-toxic prompts only": ("stratum", "1"),
    "every prompt again": ("stratum", ""),
    "scores of 0.5 or more": ("least", "0.5"),
    "every score again": ("least", "0"),
    "longest first": ("order", "long"),
    "highest score first": ("order", "score"),
}
TIMED = """([name, value]) => new Promise(done => {
    const field = document.getElementById("replies-" + name), begin = performance.now();
    if (name === "on") field.click();
    else { field.value = value; field.dispatchEvent(new Event("input")); }
    requestAnimationFrame(() => { const c = new MessageChannel();
        c.port1.onmessage = () => done(performance.now() - begin); c.port2.postMessage(0); });
})"""


def write_run(folder: Path, prompts: int, samples: int) -> Path:
    """A run whose base model went through a gate of so many replies; returns the gate's page."""
    rng = random.Random(0)
    rows = [
        GatePrompt(id=f"{stratum}-{i}", text=" ".join(rng.choices(WORDS, k=12)), stratum=stratum, source="benchmark")
        for stratum in ("toxic", "non-toxic")
        for i in range(prompts // 2)
    ]
    (folder / "run.yaml").write_text("base: shipped\n")
    checkpoint = folder / "base" / "checkpoint"
    checkpoint.mkdir(parents=True)
    (checkpoint / "config.json").write_text("{}")
    sampler = lambda texts, plan: [  # noqa: E731
        [" ".join(rng.choices(WORDS, k=rng.randint(4, 20))) for _ in range(samples)] for _ in texts
    ]
    policy = replace(standard(), prompts_per_stratum=prompts // 2, samples_per_prompt=samples)
    policy = replace(policy, utility=replace(policy.utility, max_perplexity=None))
    gate(sampler, draw_prompts(rows, policy), LexicalScorer(), policy, stage="base", folder=folder / "base" / "gate",
         checkpoint=folder_digest(checkpoint))  # fmt: skip
    return folder / "base" / "gate" / "report.html"


def measure(page_file: Path, repeats: int) -> dict:
    """Times of opening and of each action, in milliseconds: the main thread's, and until the result is shown."""
    from playwright.sync_api import sync_playwright

    steps = {**ACTIONS, "next leaf": ("on", "")}
    work, shown = ({name: [] for name in ("open", *steps)} for _ in range(2))
    nodes = 0
    with sync_playwright() as playwright:
        path = None if Path(playwright.chromium.executable_path).exists() else shutil.which("chromium")
        browser = playwright.chromium.launch(executable_path=path)
        version = browser.version
        for _ in range(repeats):
            page = browser.new_page(viewport={"width": 1280, "height": 900})
            page.set_default_timeout(300_000)
            tools = page.context.new_cdp_session(page)
            tools.send("Performance.enable", {"timeDomain": "threadTicks"})

            def computed(tools=tools) -> float:
                found = tools.send("Performance.getMetrics")["metrics"]
                return next(1000 * metric["value"] for metric in found if metric["name"] == "ThreadTime")

            page.goto(page_file.as_uri())
            page.wait_for_selector("#replies-list li")
            shown["open"].append(page.evaluate("performance.getEntriesByType('navigation')[0].loadEventEnd"))
            work["open"].append(computed())
            for name, action in steps.items():
                before = computed()
                shown[name].append(page.evaluate(TIMED, list(action)))
                work[name].append(computed() - before)
            nodes = page.evaluate("document.querySelectorAll('*').length")
            page.close()
        browser.close()
    summary = lambda times: {  # noqa: E731
        name: {"median": round(statistics.median(values), 1), "max": round(max(values), 1)}
        for name, values in times.items()
    }
    return {"chromium": version, "repeats": repeats, "elements": nodes, "work_ms": summary(work),
            "shown_ms": summary(shown)}  # fmt: skip


def tables(figures: dict) -> dict[str, str]:
    """The table by the name of its place."""
    columns = [(kind, which) for kind in ("work_ms", "shown_ms") for which in ("median", "max")]
    rows = [[name, *(f"{figures[kind][name][which]:.0f} ms" for kind, which in columns)] for name in figures["work_ms"]]
    return {"page": result.table(["", "computing, median", "slowest", "until shown, median", "slowest"], rows)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prompts", type=int, default=800)
    parser.add_argument("--samples", type=int, default=25, help="replies to each prompt")
    parser.add_argument("--repeats", type=int, default=10, help="how often to open the page")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        page = write_run(Path(folder), arguments.prompts, arguments.samples)
        began = time.process_time()
        draw_report(Path(folder))
        drawn = time.process_time() - began
        rows = json.loads(page.read_text().split('id="replies-data">')[1].split("</script>")[0])["replies"]
        figures = {"replies": len(rows), "megabytes": round(page.stat().st_size / 1e6, 2), "drawn_s": round(drawn, 2)}
        print(result.write("page", figures | measure(page, arguments.repeats)))
    for name, text in tables(result.read("page")).items():
        result.fill(ROOT / "docs" / "report.md", name, text)


if __name__ == "__main__":
    main()
