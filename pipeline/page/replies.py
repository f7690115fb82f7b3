"""Every reply of the gates, as data for the page's script to filter and search."""

import json
import math
from collections.abc import Mapping
from typing import Any, NamedTuple

from markupsafe import Markup

from pipeline.page.provenance import redraw
from pipeline.page.record import StageRecord
from pipeline.page.samples import COVERED_FROM, cut

MOST = 20_000


class Replies(NamedTuple):
    """What the script reads, how many replies are in it, and how many there were to choose from."""

    content: Mapping[str, Any]
    shown: int
    total: int

    @property
    def embedded(self) -> Markup:
        """The content as JSON that no HTML parser can see an end of the script or a comment in."""
        text = json.dumps(self.content, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
        # Safe as markup: what could be one is spelt as JSON spells it.
        return Markup(text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e"))


def replies(stages: list[StageRecord], run: str, printed: Any = str, *, most: int = MOST) -> Replies | None:
    """Gathers the replies of some stages.

    Args:
        stages: those with samples; each prompt is told once, whichever stages answered it.
        run: its name, for the commands.
        printed: makes a text one that hides nothing, as everything on the page.
        most: replies that a page takes. Of more, half of a stage's are those that score highest and half are spread
            evenly over the others.

    Returns:
        The replies, or None if there are none. In `content` a prompt is [id, text, stratum, source, number], that of
        its line in samples.jsonl, and a reply [prompt, stage, place, text, scores], the first two by their place in
        `prompts` and `stages`. `again` has for each stage the command that draws a prompt's replies again, which
        wants the prompt's number behind it.
    """
    if not any(stage.samples for stage in stages):
        return None
    labels = _labels(stages)
    strata: list[str] = []
    prompts: dict[tuple[str, str, int], int] = {}
    told, chosen, total = [], [], 0
    for number, stage in enumerate(stages):
        rows = []
        for line, row in enumerate(stage.samples, start=1):
            key = (str(row["id"]), str(row["text"]), line)
            if key not in prompts:
                prompts[key] = len(told)
                stratum = printed(str(row["stratum"]))
                strata += [stratum] if stratum not in strata else []
                origin = printed(str(row["source"]))
                told.append([printed(key[0]), printed(cut(key[1])), strata.index(stratum), origin, line])
            for place, text in enumerate(row["samples"]):
                scores = [_score(row["scores"].get(label), place) for label in labels]
                rows.append([prompts[key], number, place + 1, text, scores])
        total += len(rows)
        chosen += _choice(rows, most // len(stages))
    for row in chosen:
        row[3] = printed(cut(str(row[3])))
    cover = min([COVERED_FROM, *(float(_policy(stage).get("threshold", COVERED_FROM)) for stage in stages)])
    again = [printed(redraw(run, stage.name)) for stage in stages]
    content = {"stages": [stage.title for stage in stages], "again": again,
               "labels": [printed(label) for label in labels], "strata": strata, "cover": cover,
               "seed": _policy(stages[-1]).get("seed"), "prompts": told, "replies": chosen}  # fmt: skip
    return Replies(content, len(chosen), total)


def _choice(rows: list[list[Any]], most: int) -> list[list[Any]]:
    if len(rows) <= most:
        return rows
    first = sorted(range(len(rows)), key=lambda i: (-_first(rows[i]), i))
    rest = first[most // 2 :]
    spread = [rest[len(rest) * i // (most - most // 2)] for i in range(most - most // 2)]
    return [rows[i] for i in sorted({*first[: most // 2], *spread})]


def _first(row: list[Any]) -> float:
    """The score that counts; one that is no number is looked at first."""
    return 2.0 if row[4][0] is None else row[4][0]


def _score(scores: Any, place: int) -> float | None:
    value = None if scores is None else scores[place]
    return None if value is None or not math.isfinite(value) else round(float(value), 3)


def _labels(stages: list[StageRecord]) -> list[str]:
    """The gated label first, then the others by name."""
    gated = str((stages[-1].gate or {}).get("label", "toxicity"))
    others = {label for stage in stages for row in stage.samples[:1] for label in row["scores"]} - {gated}
    return [gated, *sorted(others)]


def _policy(stage: StageRecord) -> Mapping[str, Any]:
    return (stage.gate or {}).get("policy") or {}
