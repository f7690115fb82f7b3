"""Toxicity scorers, and the one way to name them: the option `scorer` of every command that scores.

    lexical                    alt-profanity-check: words, not meaning; no download, no torch
    calibrated:FILE.json       what `theodolite safety calibrate` wrote, over the scorer it was fitted for
    detoxify:FOLDER            a transformer classifier in JAX, from `theodolite safety convert-detoxify`
    detoxify, detoxify:NAME    the same through its package (torch): the published weights "original", "unbiased", ...
    detoxify:FILE.ckpt         ... or a checkpoint on disk, with the transformer's config and tokenizer beside it
    https://HOST/PATH          a server that speaks Perspective's format; options follow a #
    max:A+B, mean:A+B          several of the above at once, the highest or the mean score

Every scorer is pinned by its identity and every score passes `safety.scorer.check_scores`. Nothing is imported before
a scorer is opened: each needs another library.
"""

from collections.abc import Callable

from safety.scorer import Scorer
from training.errors import BadInput

# The detoxify package's names of published weights.
PUBLISHED = ("original", "unbiased", "multilingual", "original-small", "unbiased-small")
CHECKPOINT_SUFFIXES = (".ckpt", ".pt", ".pth", ".bin")


def open_scorer(name: str) -> Scorer:
    """The scorer of that name, ready to score.

    Raises:
        BadInput: there is no such scorer, its library is not installed, or its files are missing or damaged.
        GateInconclusive: a server does not answer.
    """
    return understood(name)()


def understood(name: str) -> Callable[[], Scorer]:
    """What a name means: a function that opens the scorer. Looks at the name only, so a config can be checked by it.

    Raises:
        BadInput: for a name of no known form.
    """
    kind, _, rest = name.partition(":")
    match kind:
        case "lexical" if name == kind:
            return _lexical
        case "calibrated" if rest:
            return lambda: _calibrated(rest)
        case "detoxify" if name == kind or rest in PUBLISHED or rest.endswith(CHECKPOINT_SUFFIXES):
            return lambda: _detoxify(rest or "original")
        case "detoxify" if rest:
            return lambda: _detoxify_jax(rest)
        case "http" | "https" if rest.startswith("//"):
            return lambda: _perspective(name)
        case "max" | "mean" if rest:
            members = [understood(member) for member in rest.split("+")]
            return lambda: _ensemble(members, kind)
    raise BadInput(
        "scorer is lexical, calibrated:FILE.json, detoxify, detoxify:FOLDER, https://HOST/PATH, max:A+B or mean:A+B, "
        f"not {name!r}"
    )


def _lexical() -> Scorer:
    from safety.scorers.lexical import LexicalScorer

    return LexicalScorer()


def _calibrated(file: str) -> Scorer:
    from safety.scorers.calibration import CalibratedScorer, read_calibration

    calibration = read_calibration(file)
    return CalibratedScorer(open_scorer(calibration.scorer), calibration)


def _detoxify(weights: str) -> Scorer:
    from safety.scorers.detoxify import DetoxifyScorer

    return DetoxifyScorer(weights)


def _detoxify_jax(folder: str) -> Scorer:
    from safety.scorers.detoxify_jax import DetoxifyJaxScorer

    return DetoxifyJaxScorer(folder)


def _perspective(address: str) -> Scorer:
    from safety.scorers.perspective import PerspectiveScorer

    return PerspectiveScorer.at(address)


def _ensemble(members: list[Callable[[], Scorer]], rule: str) -> Scorer:
    from safety.scorers.ensemble import EnsembleScorer

    return EnsembleScorer([member() for member in members], rule)
