"""What the lexical scorer is worth, raw and calibrated, on texts that others rated.

    python benchmarks/scorers.py --calibrate rtp.jsonl --audit rtp.jsonl other.jsonl ...   measure, then fill the tables
    python benchmarks/scorers.py                                      fill the tables from the last measurement

Files of rated texts as for `theodolite safety audit-scorer`. Figures go to safety/data/audit_lexical.json, which the
package ships, and benchmarks/results/scorers.json, and from there into docs/scorers.md.
"""

import argparse
import json
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.parts import result  # noqa: E402
from safety.statistics import in_words  # noqa: E402

PACKAGED = ROOT / "safety" / "data" / "audit_lexical.json"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--calibrate", help="rated texts to fit the calibration to")
    parser.add_argument("--audit", nargs="+", help="rated texts to audit on")
    given = parser.parse_args()
    if given.calibrate and given.audit:
        measure(given.calibrate, given.audit)
    draw()


def measure(calibrate: str, audit: list[str]) -> None:
    """Runs the commands."""
    from pipeline import cli

    with tempfile.TemporaryDirectory() as folder:
        curves, after = Path(folder) / "calibration.json", Path(folder) / "audit.json"
        for words in (
            ["safety", "calibrate", calibrate, str(curves)],
            ["safety", "audit-scorer", *audit, f"out={PACKAGED}"],
            ["safety", "audit-scorer", *audit, f"scorer=calibrated:{curves}", f"out={after}"],
        ):
            assert cli.main(words) == 0
        calibration = json.loads(curves.read_text(encoding="utf-8"))
        audited = json.loads(after.read_text(encoding="utf-8"))
    points = {label: len(curve["x"]) for label, curve in calibration["curves"].items()}
    kept = {"data": calibration["data"], "measured": calibration["measured"], "points": points}
    audited["named"] = "calibrated:calibration.json"
    print(result.write("scorers", {"calibration": kept, "calibrated": audited}))


def draw() -> None:
    """The tables of docs/scorers.md."""
    found, raw = result.read("scorers"), json.loads(PACKAGED.read_text(encoding="utf-8"))
    page = ROOT / "docs" / "scorers.md"
    measured = found["calibration"]["measured"]["toxicity"]
    rated = found["calibration"]["data"]["texts"]["toxicity"]["rated"]
    name = found["calibration"]["data"]["name"]
    header = (f"`lexical` on {rated:,} texts of {name}, each by a curve fitted without it", "toxic found",
              "others flagged", "calibration error")  # fmt: skip
    rows = [
        [when, in_words(measured[when]["true_positive_rate"]), in_words(measured[when]["false_positive_rate"]),
         f"{measured[when]['calibration_error']:.3f}"]
        for when in ("before", "after")
    ]  # fmt: skip
    result.fill(page, "calibration", result.table(header, rows))
    header = ("rated texts", "toxic of rated", "scorer", "AUC", "toxic found", "others flagged", "calibration error")
    rows = []
    for one, other in zip(raw["data"], found["calibrated"]["data"], strict=True):
        for scorer, measured in (("lexical", one), ("calibrated", other)):
            figures = measured["labels"]["toxicity"]
            rows.append([
                f"{one['name']}, {one['part']}s", f"{figures['toxic']:,} of {figures['rated']:,}", scorer,
                *(in_words(figures[name]) for name in ("auc", "true_positive_rate", "false_positive_rate")),
                f"{figures['calibration_error']:.3f}",
            ])  # fmt: skip
    bias = {"lexical": raw["identity_bias"], "calibrated": found["calibrated"]["identity_bias"]}
    worst = sorted({term["term"] for one in bias.values() for term in one["terms"][:6]})
    terms = {scorer: {term["term"]: term for term in one["terms"]} for scorer, one in bias.items()}
    flagged = [
        ["any of the words", *(in_words(one["named"]["flagged"]) for one in bias.values())],
        ["words that name no group", *(in_words(one["control"]["flagged"]) for one in bias.values())],
        *([term, *(in_words(terms[scorer][term]["flagged"]) for scorer in bias)] for term in worst),
    ]
    second = result.table(("neutral sentences with", "lexical, flagged", "calibrated, flagged"), flagged)
    result.fill(page, "audit", f"{result.table(header, rows)}\n\n{second}")


if __name__ == "__main__":
    main()
