"""`theodolite safety calibrate | convert-detoxify | audit-scorer`: make a scorer, and say what it is worth."""

from dataclasses import dataclass
from typing import Any

from safety.scorers import understood
from training.errors import BadInput


@dataclass(frozen=True, kw_only=True)
class Calibrate:
    """Curves from a scorer's scores to Perspective's.

    Attributes:
        data: RealToxicityPrompts or other texts with Perspective's scores (JSONL, Parquet or hub name).
        out: file to write, for scorer=calibrated:FILE.
        scorer: who is calibrated.
        threshold: from which score of Perspective on a text counts as toxic, in the figures that are printed.
    """

    data: str
    out: str
    scorer: str = "lexical"
    threshold: float = 0.5

    def __post_init__(self) -> None:
        """Check the scorer's name and the threshold."""
        understood(self.scorer)
        _require_threshold(self.threshold)


@dataclass(frozen=True, kw_only=True)
class ConvertDetoxify:
    """A detoxify checkpoint (BERT, RoBERTa or XLM-R) as safetensors and tokenizer.

    Attributes:
        checkpoint: file in detoxify's format; reading it needs torch, once.
        out: new folder, for scorer=detoxify:FOLDER.
        transformer: folder with config.json and tokenizer.json of the transformer, or its name on the hub; by default
            the name in the checkpoint.
    """

    checkpoint: str
    out: str
    transformer: str | None = None


@dataclass(frozen=True, kw_only=True)
class AuditScorer:
    """A scorer against texts that others have rated.

    Attributes:
        data: rated texts, as for `safety calibrate`, that may name a group; several files are reported one by one.
        scorer: who is audited.
        out: file to write; as scorer_audit.json in a run's folder it is printed in the run's report.
        threshold: from where on a text counts as toxic.
    """

    data: tuple[str, ...]
    scorer: str = "lexical"
    out: str = "scorer_audit.json"
    threshold: float = 0.5

    def __post_init__(self) -> None:
        """Check that there is something to look at."""
        understood(self.scorer)
        _require_threshold(self.threshold)
        if not self.data:
            raise BadInput("an audit needs data: give one or more files of rated texts")


def calibrate(config: Calibrate) -> None:
    """Writes the calibration and prints what it changes, measured on texts left out of the fit."""
    from pathlib import Path

    from pipeline.gates import make_scorer
    from safety.scorers.calibration import calibrate as fit
    from safety.scorers.calibration import write_calibration
    from safety.scorers.rated import read_rated
    from safety.statistics import in_words

    data = read_rated(config.data)
    found = fit(config.scorer, make_scorer(config.scorer), data, threshold=config.threshold)
    out = _parent_made(Path(config.out))
    write_calibration(found, out)
    for label, figures in found.measured.items():
        rated = found.data["texts"][label]
        print(f"{label}: {rated['rated']} texts of {data.name}, {rated['unrated']} more without a score")
        for when in ("before", "after"):
            at = figures[when]
            right, wrong = (in_words(at[name]) for name in ("true_positive_rate", "false_positive_rate"))
            print(f"  {when:6s} of the toxic found {right}, of the others flagged {wrong}, calibration error "
                  f"{at['calibration_error']:.3f}")  # fmt: skip
    print(f"written: {out}; use it with scorer=calibrated:{out}")


def convert_detoxify(config: ConvertDetoxify) -> None:
    """Writes the folder and says what is in it."""
    from pathlib import Path

    from safety.scorers.convert import convert

    found = convert(Path(config.checkpoint), Path(config.out), config.transformer)
    print(f"{config.out}: {found.family}, {found.layers} layers of {found.width}, texts of up to {found.max_tokens} "
          f"tokens, labels {', '.join(found.labels)}; use it with scorer=detoxify:{config.out}")  # fmt: skip


def audit_scorer(config: AuditScorer) -> None:
    """Writes the audit and prints its main figures."""
    from pathlib import Path

    from pipeline.gates import make_scorer
    from safety.scorers.audit import KINDS, audit, audit_json
    from safety.scorers.rated import read_rated
    from safety.statistics import in_words
    from training.files import write_whole

    data = [read_rated(source) for source in config.data]
    found = audit(config.scorer, make_scorer(config.scorer), data, threshold=config.threshold)
    out = _parent_made(Path(config.out))
    write_whole(out, audit_json(found))
    print(f"{found['scorer']['name']} ({found['scorer']['version']}), threshold {config.threshold}, 95 % intervals")
    for measured in found["data"]:
        for label, figures in measured["labels"].items():
            print(f"  {measured['name']}, {measured['part']}, {label}: {figures['toxic']} of {figures['rated']} toxic, "
                  f"AUC {in_words(figures['auc'])}, found {in_words(figures['true_positive_rate'])}, flagged wrongly "
                  f"{in_words(figures['false_positive_rate'])}, calibration error "
                  f"{figures['calibration_error']:.3f}")  # fmt: skip
            for one in figures.get("groups", [])[:6]:
                shares = ", ".join(f"{kind} {in_words(one[kind])}" for kind in KINDS if one[kind])
                print(f"    {one['group']}, {one['toxic']} of {one['texts']} toxic, AUC: {shares or 'none'}")
    bias = found["identity_bias"]
    print(f"  neutral sentences flagged: {in_words(bias['named']['flagged'])} of those that name a group, "
          f"{in_words(bias['control']['flagged'])} of the others")  # fmt: skip
    worst = ", ".join(f"{one['term']} {one['flagged']['estimate']:.0%}" for one in bias["terms"][:6])
    print(f"  worst: {worst}")
    print(f"written: {out}")


def _require_threshold(threshold: float) -> None:
    if not 0 < threshold < 1:
        raise BadInput(f"a threshold lies between 0 and 1, not at {threshold}")


def _parent_made(path: Any) -> Any:
    path.parent.mkdir(parents=True, exist_ok=True)
    return path
