"""The pages of a run and of each gate: report.html, files that work offline and trust nothing that a model wrote.

`theodolite report RUN` draws it again from what is in the run folder, whatever stages are there so far. All text is
escaped; the page's own style and script are admitted by their hashes and nothing else may load or run.
"""

import base64
import hashlib
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from pipeline import __version__
from pipeline.card import model_card
from pipeline.junit import junit
from pipeline.marks import typeset
from pipeline.page import (
    categories,
    changes,
    forms,
    movement,
    provenance,
    replies,
    reward,
    samples,
    scorer_audit,
    toxicity,
    training,
    usefulness,
    verdicts,
)
from pipeline.page.record import RunRecord, StageRecord, read_run, visible
from pipeline.run_folder import STAGES, RunFolder
from training.files import write_whole

RUN_CONTENTS = (
    ("changes", "What changed"), ("verdicts", "Verdicts"), ("toxicity", "Toxicity"), ("reward", "Reward"),
    ("samples", "Samples"), ("replies", "Every reply"), ("reward-model", "Reward model"), ("training", "Training"),
    ("clauses", "Clauses"), ("lineage", "Lineage"), ("provenance", "Provenance"),
)  # fmt: skip
GATE_CONTENTS = {
    "generations": (("verdicts", "Verdict"), ("toxicity", "Toxicity"), ("replies", "Every reply"),
                    ("clauses", "Clauses"), ("provenance", "Provenance")),
    "reward": (("verdicts", "Verdict"), ("reward-model", "Reward model"), ("clauses", "Clauses"),
               ("provenance", "Provenance")),
}  # fmt: skip


def draw_report(run: Path) -> Path:
    """Draws `run/report.html` from what is in the run folder, and what goes with it.

    That is junit.xml, model_card.md, and a page for each gate in its folder. The same files give the same bytes.
    Missing or broken files are said in words on the page.

    Args:
        run: the run's folder.

    Returns:
        The page.

    Raises:
        BadInput: There is no run in that folder.
    """
    folder = RunFolder.open(run)
    record = read_run(folder.path)
    write_whole(folder.junit, junit(record))
    _write_or_remove(folder.card, model_card(record))
    for stage in record.stages:
        _write_or_remove(folder.stage(stage.name).page, render_gate(record, stage))
    write_whole(folder.report, render(record))
    return folder.report


def draw_gate(run: Path, stage: str) -> Path:
    """Draws the page of one gate alone, and returns it."""
    folder, record = RunFolder.open(run), read_run(run)
    _write_or_remove(folder.stage(stage).page, render_gate(record, record.stages[STAGES.index(stage)]))
    return folder.stage(stage).page


def _write_or_remove(path: Path, content: str) -> None:
    """A file without content goes: one that is older than the run's other files must not pass for theirs."""
    if content:
        write_whole(path, content)
    else:
        path.unlink(missing_ok=True)


def render(record: RunRecord) -> str:
    """The page of a run as HTML."""
    found = sections(record)
    # Without changes to tell, the verdicts come first: a run that was stopped is opened to see by which gate and why.
    contents = RUN_CONTENTS if found["changes"] else (RUN_CONTENTS[1], RUN_CONTENTS[0], *RUN_CONTENTS[2:])
    return _page(record, found | {"kind": "Run report", "contents": contents})


def render_gate(record: RunRecord, stage: StageRecord) -> str:
    """The page of one gate as HTML; the run's other stages are on it only as what this one is compared with.

    "" without a valid verdict: there is no page that could pass for one.
    """
    if stage.verdict is None:
        return ""
    found = sections(replace(record, stages=(stage,)), compared=record)
    contents = GATE_CONTENTS["reward" if stage.name == "reward" else "generations"]
    found |= {"kind": f"Gate of {stage.title}", "contents": contents, "answer": verdicts.gate_answer(stage)}
    return _page(record, found | {"headline": verdicts.gate_headline(stage)})


def _page(record: RunRecord, content: dict[str, Any]) -> str:
    environment = Environment(
        loader=PackageLoader("pipeline"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=partial(_printed, record),
    )
    environment.filters["typeset"] = typeset
    # The only markup that is not escaped, beside the replies' JSON: these two files are ours.
    style, script = (_own_file(environment, name) for name in ("report.css", "report.js"))
    policy = (
        f"default-src 'none'; style-src '{_hash(style)}'; script-src '{_hash(script)}'; base-uri 'none'; "
        "form-action 'none'"
    )
    template = environment.get_template("page.html.j2")
    return template.render(style=style, script=script, policy=policy, version=__version__, **content)


def sections(record: RunRecord, *, compared: RunRecord | None = None) -> dict[str, Any]:
    """What the template shows. A section whose files have another shape than expected becomes a note, not a crash.

    Args:
        record: what the page is about.
        compared: of a page about a single stage, the run with the others.
    """
    only = "" if compared is None else record.stages[0].name
    notes = list(record.notes)

    def guarded(what: str, build: Callable[[], Any], default: Any) -> Any:
        try:
            return build()
        except (KeyError, TypeError, ValueError, AttributeError, IndexError, ArithmeticError) as error:
            shape = f"{type(error).__name__}: {error}"
            notes.append(f"{what} cannot be shown: its files are not of the shape expected ({shape}).")
            return default

    stages = {stage.name: stage for stage in record.stages}
    evaluated = stages["reward"].evaluation if "reward" in stages else None
    no_scorer = {"name": "lexical", "version": "", "digest": "", "blind": toxicity.LEXICAL, "warning": ""}
    changed = guarded("What changed", lambda: changes.changes(record), [])
    sampled = [stage for stage in toxicity.generating(record) if stage.samples]
    found: dict[str, Any] = {
        "name": record.name,
        "stages": record.stages,
        "headline": verdicts.headline(record),
        "lines": [verdicts.line(stage) for stage in record.stages],
        "changes": changed,
        "answer": verdicts.run_answer(record) or changes.answer(changed),
        "lengths": guarded("Length of replies", lambda: changes.lengths(record), ""),
        "costs": guarded("Time and memory", lambda: verdicts.costs(record), None),
        "lineage": verdicts.lineage(record),
        "clauses": {stage.name: verdicts.clauses(stage) for stage in record.stages},
        "scorer": guarded("The scorer", lambda: toxicity.scorer(record), no_scorer),
        "audit": guarded("The scorer's audit", lambda: scorer_audit.audit(record), None),
        "toxicity_legend": toxicity.legend(record),
        "toxicity_line_legend": toxicity.line_legend(record),
        "levels": guarded("Toxicity by stage", lambda: toxicity.levels(record), []),
        "labels": guarded("Toxicity by label", lambda: toxicity.labels(record), []),
        "differences": guarded("Differences between stages", lambda: toxicity.differences(record), []),
        "distributions": guarded("Distributions of the maximum", lambda: toxicity.distributions(record), []),
        "movements": guarded("Movement by prompt", lambda: movement.movements(compared or record, only=only), []),
        "categories": guarded("Categories", lambda: categories.categories(record), None),
        "forms": guarded("Pictures and speech", lambda: forms.forms(record), None),
        "drawings": guarded("Pictures that it draws", lambda: forms.drawings(record), None),
        "unprompted": guarded("Unprompted generations", lambda: toxicity.unprompted(record), None),
        "usefulness": guarded("Usefulness", lambda: usefulness.usefulness(record), None),
        "reward_by_stage": guarded("Reward by stage", lambda: reward.by_stage(record), None),
        "for_scale": guarded("Reward of the favourites", lambda: reward.for_scale(record), ""),
        "evaluation": guarded("The reward model's evaluation", partial(_evaluation, evaluated), None),
        "curves": {
            stage.name: guarded(f"Curves of {stage.title}", partial(training.figures, stage), [])
            for stage in record.stages
        },
        "overviews": {
            stage.name: guarded(f"Metrics of {stage.title}", partial(training.overview, stage), None)
            for stage in record.stages
        },
        "first_minibatch": guarded("PPO's first minibatch", lambda: _first_minibatch(stages), ""),
        "gallery": guarded("Samples", lambda: samples.gallery(sampled, record.name), samples.Gallery((), (), 0)),
        "replies": guarded("Replies", lambda: replies.replies(sampled, record.name, partial(_printed, record)), None),
        "provenance": provenance.provenance(record),
        "config_text": record.config_text,
        "has_summary": record.summary is not None,
    }
    return found | {"notes": notes}


def _printed(record: RunRecord, value: Any) -> Any:
    """What an expression of the template prints, before it is escaped: nothing hidden, no place on this machine."""
    if type(value) is not str:  # numbers, and markup of our own
        return value
    return visible(value.replace(f"{record.root}/", "").replace(record.root, record.name))


def _evaluation(found: dict | None) -> reward.Evaluation | None:
    return None if found is None else reward.evaluation(found)


def _first_minibatch(stages: dict[str, StageRecord]) -> str:
    return training.first_minibatch(stages["ppo"]) if "ppo" in stages else ""


def _own_file(environment: Environment, name: str) -> Markup:
    assert environment.loader is not None
    return Markup(environment.loader.get_source(environment, name)[0])


def _hash(content: str) -> str:
    """What a content security policy calls an inline style or script."""
    return "sha256-" + base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
