"""The page of a run: report.html, one file that works offline and trusts nothing that a model wrote.

`theodolite report RUN` draws it again from what is in the run folder, whatever stages are there so far. All text is
escaped; the page's own style and script are admitted by their hashes and nothing else may load or run.
"""

import base64
import hashlib
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from pipeline import __version__
from pipeline.marks import typeset
from pipeline.page import changes, provenance, reward, samples, scorer_audit, toxicity, training, verdicts
from pipeline.page.record import RunRecord, read_run, visible
from pipeline.run_folder import RunFolder


def draw_report(run: Path) -> Path:
    """Draws `run/report.html` from what is in the run folder; the same files give the same bytes.

    Missing or broken files are said in words on the page.

    Args:
        run: the run's folder.

    Returns:
        The page.

    Raises:
        BadInput: There is no run in that folder.
    """
    folder = RunFolder.open(run)
    page = render(read_run(folder.path))
    part = folder.report.with_name(folder.report.name + ".part")
    part.write_bytes(page.encode())
    os.replace(part, folder.report)
    return folder.report


def render(record: RunRecord) -> str:
    """The page as HTML."""
    environment = Environment(
        loader=PackageLoader("pipeline"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=partial(_printed, record),
    )
    environment.filters["typeset"] = typeset
    # The only markup that is not escaped: these two files are ours.
    style, script = (_own_file(environment, name) for name in ("report.css", "report.js"))
    policy = (
        f"default-src 'none'; style-src '{_hash(style)}'; script-src '{_hash(script)}'; base-uri 'none'; "
        "form-action 'none'"
    )
    template = environment.get_template("report.html.j2")
    return template.render(style=style, script=script, policy=policy, version=__version__, **sections(record))


def sections(record: RunRecord) -> dict[str, Any]:
    """What the template shows. A section whose files have another shape than expected becomes a note, not a crash."""
    notes = list(record.notes)

    def guarded(what: str, build: Callable[[], Any], default: Any) -> Any:
        try:
            return build()
        except (KeyError, TypeError, ValueError, AttributeError, IndexError, ArithmeticError) as error:
            shape = f"{type(error).__name__}: {error}"
            notes.append(f"{what} cannot be shown: its files are not of the shape expected ({shape}).")
            return default

    ppo, reward_stage = record.stages[-1], record.stages[2]
    no_scorer = {"name": "lexical", "version": "", "digest": "", "blind": toxicity.LEXICAL, "warning": ""}
    changed = guarded("What changed", lambda: changes.changes(record), [])
    found: dict[str, Any] = {
        "name": record.name,
        "stages": record.stages,
        "headline": verdicts.headline(record),
        "lines": [verdicts.line(stage) for stage in record.stages],
        "changes": changed,
        "answer": changes.answer(changed),
        "lengths": guarded("Length of replies", lambda: changes.lengths(record), ""),
        "costs": guarded("Time and memory", lambda: verdicts.costs(record), None),
        "lineage": verdicts.lineage(record),
        "clauses": {stage.name: verdicts.clauses(stage) for stage in record.stages},
        "scorer": guarded("The scorer", lambda: toxicity.scorer(record), no_scorer),
        "audit": guarded("The scorer's audit", lambda: scorer_audit.audit(record), None),
        "toxicity_legend": toxicity.legend(record),
        "toxicity_line_legend": toxicity.line_legend(record),
        "levels": guarded("Toxicity by stage", lambda: toxicity.levels(record), []),
        "differences": guarded("Differences between stages", lambda: toxicity.differences(record), []),
        "distributions": guarded("Distributions of the maximum", lambda: toxicity.distributions(record), []),
        "usefulness": guarded("Usefulness", lambda: toxicity.usefulness(record), None),
        "reward_by_stage": guarded("Reward by stage", lambda: reward.by_stage(record), None),
        "for_scale": guarded("Reward of the favourites", lambda: reward.for_scale(record), ""),
        "evaluation": guarded("The reward model's evaluation", partial(_evaluation, reward_stage.evaluation), None),
        "curves": {
            stage.name: guarded(f"Curves of {stage.title}", partial(training.figures, stage), [])
            for stage in record.stages
        },
        "overviews": {
            stage.name: guarded(f"Metrics of {stage.title}", partial(training.overview, stage), None)
            for stage in record.stages
        },
        "first_minibatch": guarded("PPO's first minibatch", lambda: training.first_minibatch(ppo), ""),
        "gallery": guarded("Samples", lambda: samples.gallery(_sampled(record)), samples.Gallery((), (), 0)),
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


def _sampled(record: RunRecord) -> list:
    return [stage for stage in toxicity.generating(record) if stage.samples]


def _own_file(environment: Environment, name: str) -> Markup:
    assert environment.loader is not None
    return Markup(environment.loader.get_source(environment, name)[0])


def _hash(content: str) -> str:
    """What a content security policy calls an inline style or script."""
    return "sha256-" + base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
