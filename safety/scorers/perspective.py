"""A scorer behind HTTP that speaks the request and response format of the Perspective API.

    scorer=https://commentanalyzer.googleapis.com/v1alpha1/comments:analyze#rate=1

The key is read from the environment variable PERSPECTIVE_API_KEY and never written anywhere; it is sent over https, or
to this host itself, and nowhere else. Options follow the #,
which is not sent: rate (requests a second), timeout and pause (seconds), tries, labels (separated by commas), language.

It fails closed. An answer that is late, cut short, not JSON, or lacks a score that is a number in [0, 1] is asked for
again, and after the last try there is no score at all but an error.

A server's weights cannot be pinned, so its behaviour is: the identity has a digest of the scores that it gives to fixed
sentences. When the model behind the address drifts, it becomes another scorer.
"""

import http.client
import ipaddress
import json
import math
import os
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from typing import Any

import numpy as np

from safety.evaluation import BENIGN_CANARIES, TOXIC_CANARIES
from safety.scorer import ScorerIdentity
from training.digest import json_digest
from training.errors import BadInput, GateInconclusive
from training.files import strict_json

KEY = "PERSPECTIVE_API_KEY"
LABELS = ("toxicity", "severe_toxicity", "identity_attack", "insult", "profanity", "threat")
# Perspective refuses a text without a visible character. Its score is, by definition here, that of a full stop.
EMPTY = "."
LARGEST_ANSWER = 1 << 20
_PASSING = {408, 425, 429, 500, 502, 503, 504}
_LONGEST_PAUSE = 60.0


class _Failed(Exception):
    """One try failed; `again` says whether another may help, `after` how long the server asks to wait."""

    def __init__(self, reason: str, *, again: bool = True, after: float = 0.0):
        super().__init__(reason)
        self.again, self.after = again, after


class PerspectiveScorer:
    """Scores texts one request each, several at a time, no faster than the rate."""

    def __init__(
        self,
        address: str,
        *,
        labels: Sequence[str] = LABELS,
        language: str = "en",
        rate: float = 1.0,
        timeout: float = 20.0,
        tries: int = 5,
        pause: float = 1.0,
        key: str | None = None,
    ):
        """Ask the server for the scores that identify it.

        Args:
            address: http(s) URL of the method, without a key.
            labels: what to ask for; Perspective's attributes in small letters.
            language: of the texts.
            rate: requests a second, at most.
            timeout: seconds that the server may be silent, and that the body of an answer may take as a whole.
            tries: requests for one text before giving up.
            pause: seconds before the second try, doubled before each further one; a server may ask for more.
            key: sent as the URL's parameter `key`.

        Raises:
            BadInput: an option out of range, or a key that everybody on the way could read.
            GateInconclusive: the server does not answer, or not as it should.
        """
        if not (labels and 0 < rate < 1e6 and timeout > 0 and tries >= 1 and pause >= 0):
            raise BadInput("a scorer at an address needs labels, a rate and a timeout above 0 and at least one try")
        parts = urllib.parse.urlsplit(address)
        if not parts.hostname or not all("!" <= character <= "~" for character in address):
            raise BadInput(f"{address!a} is no address of a scorer")
        if "key" in urllib.parse.parse_qs(parts.query) or parts.password:
            raise BadInput(f"a scorer's address is no place for a secret: put the key into {KEY}")
        if key and parts.scheme != "https" and not _is_this_host(parts.hostname):
            raise BadInput(
                f"everybody on the way to {parts.netloc} could read the key in {KEY}: give its https:// address, or "
                "leave the variable unset if it asks for no key"
            )
        secret = urllib.parse.urlencode({"key": key} if key else {})
        self._url = urllib.parse.urlunsplit(parts._replace(query="&".join(filter(None, (parts.query, secret)))))
        self._where, self._language, self.labels = parts.netloc, language, tuple(labels)
        self._timeout, self._tries, self._pause = timeout, tries, pause
        self._pace = _Pace(rate)
        # As many at a time as a slow server needs to keep up the rate, within reason.
        self._workers = max(1, min(16, math.ceil(rate)))
        self._opener = urllib.request.build_opener(_NoRedirect())
        probes = [*TOXIC_CANARIES, *BENIGN_CANARIES]
        scores = {label: [round(float(x), 3) for x in values] for label, values in self.score(probes).items()}
        self.identity = ScorerIdentity("perspective", address, json_digest([address, language, scores]))

    @classmethod
    def at(cls, name: str) -> "PerspectiveScorer":
        """The scorer of an address with its options behind a #, and the key of the environment.

        Raises:
            BadInput: an unknown option, or a value that is none.
            GateInconclusive: the server does not answer, or not as it should.
        """
        address, _, fragment = name.partition("#")
        options: dict[str, Any] = {}
        kinds: dict[str, Callable[[str], Any]] = {
            "rate": float, "timeout": float, "tries": int, "pause": float, "language": str,
            "labels": lambda text: tuple(text.split(",")),
        }  # fmt: skip
        for part in filter(None, fragment.split("&")):
            option, _, value = part.partition("=")
            try:
                options[option] = kinds[option](value)
            except (KeyError, ValueError) as error:
                raise BadInput(f"{part!r} is no option of a scorer at an address; there are {list(kinds)}") from error
        return cls(address, key=os.environ.get(KEY), **options)

    def score(self, texts: Sequence[str]) -> dict[str, np.ndarray]:
        """Return one float32[N] for each label; see `Scorer.score`. Equal texts are asked for once.

        Raises:
            GateInconclusive: a text could not be scored; no score is made up for it, and the rest is not asked for.
        """
        distinct, stop = list(dict.fromkeys(texts)), threading.Event()
        with ThreadPoolExecutor(self._workers) as pool:
            asked = [pool.submit(self._score_one, text, stop) for text in distinct]
            try:
                done, _ = wait(asked, return_when=FIRST_EXCEPTION)
                for failed in (one for one in done if one.exception() is not None):
                    failed.result()
            except BaseException:
                stop.set()
                pool.shutdown(cancel_futures=True)
                raise
        rows = dict(zip(distinct, [one.result() for one in asked], strict=True))
        return {label: np.array([rows[text][label] for text in texts], np.float32) for label in self.labels}

    def _score_one(self, text: str, stop: threading.Event) -> dict[str, float]:
        pause = self._pause
        for number in range(1, self._tries + 1):
            self._pace.wait(stop)
            try:
                return self._ask(text)
            except _Failed as error:
                if not error.again or number == self._tries or stop.is_set():
                    tried = "1 try" if number == 1 else f"{number} tries"
                    reason = f"the scorer at {self._where} gave no score after {tried}: {error}"
                    raise GateInconclusive(reason) from None
                stop.wait(min(max(pause, error.after), _LONGEST_PAUSE))
                pause *= 2
        raise AssertionError("unreachable: the last try returns or raises")

    def _ask(self, text: str) -> dict[str, float]:
        body = {
            "comment": {"text": text if text.strip() else EMPTY, "type": "PLAIN_TEXT"},
            "languages": [self._language],
            "requestedAttributes": {label.upper(): {} for label in self.labels},
            "doNotStore": True,
        }
        request = urllib.request.Request(
            self._url, json.dumps(body).encode(), {"Content-Type": "application/json"}, method="POST"
        )
        try:
            answer = strict_json(self._read(request))
            return {label: _value(answer, label) for label in self.labels}
        except urllib.error.HTTPError as error:  # its text would hold nothing more that is safe to print
            with error:
                after = error.headers.get("Retry-After", "")
            seconds = float(after) if after.isdigit() else 0.0
            raise _Failed(f"HTTP {error.code}", again=error.code in _PASSING, after=seconds) from None
        except (OSError, http.client.HTTPException) as error:  # refused, reset, timed out, cut short, no HTTP
            raise _Failed(f"{type(error).__name__}: {getattr(error, 'reason', error)}") from None
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise _Failed(f"an answer without a usable score: {type(error).__name__}: {error}") from None

    def _read(self, request: urllib.request.Request) -> bytes:
        """The whole answer, within the timeout: a server that sends a byte now and then does not keep us."""
        end = time.monotonic() + self._timeout
        with self._opener.open(request, timeout=self._timeout) as response:
            parts, size = [], 0
            while part := response.read1(1 << 16):
                size += len(part)
                parts.append(part)
                if size > LARGEST_ANSWER:
                    raise ValueError(f"more than {LARGEST_ANSWER} bytes")
                if time.monotonic() > end:
                    raise TimeoutError(f"not whole after {self._timeout} seconds")
            promised = response.headers.get("Content-Length")
            if promised is not None and size < int(promised):  # read1 takes an early end for the end
                raise http.client.IncompleteRead(b"", int(promised) - size)
        return b"".join(parts)


def _is_this_host(name: str) -> bool:
    try:
        return name == "localhost" or ipaddress.ip_address(name).is_loopback
    except ValueError:  # another name, and what it leads to may change
        return False


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """A redirect would turn the request into one without a text: it is an error like any other status."""

    def redirect_request(self, *_: Any) -> None:
        """Follow nothing."""
        return None


class _Pace:
    """Hands out the times at which requests may start: no two closer than 1 / rate."""

    def __init__(self, rate: float):
        self._gap, self._lock, self._next = 1 / rate, threading.Lock(), 0.0

    def wait(self, stop: threading.Event) -> None:
        """Returns when the next request may start.

        Raises:
            GateInconclusive: there is to be no next one.
        """
        with self._lock:
            now = time.monotonic()
            start = max(now, self._next)
            self._next = start + self._gap
        if stop.wait(start - now):
            raise GateInconclusive("not asked, because another text could not be scored")


def _value(answer: Any, label: str) -> float:
    value = answer["attributeScores"][label.upper()]["summaryScore"]["value"]
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
        raise ValueError(f"{label} is {value!r:.40}, not a number in [0, 1]")
    return float(value)
