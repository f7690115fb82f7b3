"""A scorer behind HTTP, against a local server that fails in every way."""

import http.server
import json
import threading
import time
import urllib.request

import numpy as np
import pytest

from safety.evaluation import TOXIC_CANARIES
from safety.scorer import Scorer, check_scores
from safety.scorers import open_scorer
from safety.scorers.perspective import EMPTY, KEY, PerspectiveScorer
from training.errors import BadInput, GateInconclusive

VALUE = '{"attributeScores": {"TOXICITY": {"summaryScore": {"value": %s}}, "THREAT": {"summaryScore": {"value": 0.1}}}}'


def answer(handler, text, body=None, status=200, headers=()):
    """Sends an answer; `body` None is a good one."""
    if body is None:
        body = VALUE % (0.9 if text in TOXIC_CANARIES else 0.25 if text == EMPTY else 0.05)
    handler.send_response(status)
    for name, value in (("Content-Length", str(len(body))), *headers):
        handler.send_header(name, value)
    handler.end_headers()
    handler.wfile.write(body.encode())


def cut_short(handler, text):
    """Promises more than it sends."""
    body = VALUE % 0.9
    handler.send_response(200)
    handler.send_header("Content-Length", str(len(body)))
    handler.end_headers()
    handler.wfile.write(body[:-9].encode())


def drip(handler, text):
    """A byte now and then, for ever."""
    handler.send_response(200)
    handler.end_headers()
    while True:
        handler.wfile.write(b" ")
        handler.wfile.flush()
        time.sleep(0.05)


def flood(handler, text):
    """More than anyone asked for."""
    handler.send_response(200)
    handler.end_headers()
    for _ in range(40):
        handler.wfile.write(b" " * 65536)


WAYS = {
    "an error of the server": lambda h, t: answer(h, t, "{}", 500),
    "unavailable": lambda h, t: answer(h, t, "{}", 503),
    "too many requests": lambda h, t: answer(h, t, "{}", 429, [("Retry-After", "0")]),
    "a flood": flood,
    "no answer": lambda h, t: h.connection.close(),
    "not HTTP": lambda h, t: h.wfile.write(b"good morning\r\n\r\n"),
    "not JSON": lambda h, t: answer(h, t, "<html>"),
    "cut off JSON": lambda h, t: answer(h, t, (VALUE % 0.9)[:-9]),
    "a truncated body": cut_short,
    "an empty body": lambda h, t: answer(h, t, ""),
    "another JSON": lambda h, t: answer(h, t, "[]"),
    "NaN": lambda h, t: answer(h, t, VALUE % "NaN"),
    "infinity": lambda h, t: answer(h, t, VALUE % "1e999"),
    "null": lambda h, t: answer(h, t, VALUE % "null"),
    "a word": lambda h, t: answer(h, t, VALUE % '"high"'),
    "true": lambda h, t: answer(h, t, VALUE % "true"),
    "above one": lambda h, t: answer(h, t, VALUE % 1.001),
    "below zero": lambda h, t: answer(h, t, VALUE % -0.001),
    "a missing label": lambda h, t: answer(h, t, '{"attributeScores": {"THREAT": {"summaryScore": {"value": 0.5}}}}'),
    "an error as an answer": lambda h, t: answer(h, t, '{"error": {"code": 400}}'),
}

SLOW = {"too late": lambda h, t: time.sleep(0.6), "dripping": drip}


class _Handler(http.server.BaseHTTPRequestHandler):
    def do_POST(self):  # noqa: N802
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        text = asked["comment"]["text"]
        with self.server.lock:
            self.server.asked.append((self.path, asked, time.monotonic()))
            broken = text == "break" and self.server.failures > 0
            self.server.failures -= broken
        try:
            (self.server.way if broken else answer)(self, text)
        except OSError:  # the client has had enough, as it should
            pass

    def do_GET(self):  # noqa: N802
        answer(self, "")

    def log_message(self, *_):
        pass


class _Server(http.server.ThreadingHTTPServer):
    def handle_error(self, *_):
        pass


@pytest.fixture(scope="module")
def server():
    """A server of Perspective's format; `way` and `failures` say how, and how often, it fails on the text "break"."""
    running = _Server(("127.0.0.1", 0), _Handler)
    running.daemon_threads, running.block_on_close = True, False
    running.lock = threading.Lock()
    threading.Thread(target=running.serve_forever, args=(0.01,), daemon=True).start()
    yield running
    running.shutdown()
    running.server_close()


@pytest.fixture
def address(server):
    server.asked, server.failures, server.way = [], 0, None
    return f"http://127.0.0.1:{server.server_port}/v1alpha1/comments:analyze"


def make(address, **options):
    options = {"labels": ("toxicity", "threat"), "rate": 5000, "timeout": 30.0, "tries": 2, "pause": 0.0} | options
    return PerspectiveScorer(address, **options)


def test_scores_in_order_and_what_is_asked(server, address):
    """One request for each distinct text; an empty text is asked for as a full stop and not dropped."""
    scorer = make(address, key="k y")
    assert isinstance(scorer, Scorer)
    before = len(server.asked)
    texts = ["fine", TOXIC_CANARIES[0], "", "fine", " \n"]
    scores = check_scores(scorer.score(texts), scorer.labels, 5)
    np.testing.assert_allclose(scores["toxicity"], [0.05, 0.9, 0.25, 0.05, 0.25])
    np.testing.assert_allclose(scores["threat"], 0.1)
    asked = server.asked[before:]
    assert len(asked) == 4
    path, body, _ = asked[0]
    assert path == "/v1alpha1/comments:analyze?key=k+y"
    assert body["requestedAttributes"] == {"TOXICITY": {}, "THREAT": {}}
    assert body["languages"] == ["en"] and body["doNotStore"] is True
    assert sorted(body["comment"]["text"] for _, body, _ in asked) == sorted(["fine", TOXIC_CANARIES[0], ".", "."])
    assert scorer.score([])["threat"].shape == (0,)


@pytest.mark.parametrize("way", WAYS)
def test_every_failure_is_tried_again_and_never_a_score(way, server, address):
    """Once: the second try counts. For ever: no score at all, and the message does not hold the key."""
    scorer = make(address, key="secret")
    server.way, server.failures = WAYS[way], 1
    assert scorer.score(["break"])["toxicity"].tolist() == [np.float32(0.05)]
    assert server.failures == 0
    server.failures = 1000
    with pytest.raises(GateInconclusive, match="gave no score after 2 tries") as caught:
        scorer.score(["fine", "break", "fine too"])
    assert "secret" not in str(caught.value) and server.failures == 998


@pytest.mark.parametrize("way", SLOW)
def test_an_answer_that_is_not_whole_in_time_is_none(way, server, address):
    scorer = make(address)
    scorer._timeout = 0.2  # only now, so that a busy machine does not fail the answers that are to be good
    server.way, server.failures = SLOW[way], 1000
    with pytest.raises(GateInconclusive, match="gave no score after 2 tries: .*(timed out|not whole)"):
        scorer.score(["break"])
    assert server.failures == 998


@pytest.mark.parametrize("status", [400, 401, 403, 404, 302])
def test_a_refusal_is_not_repeated(status, server, address):
    """A wrong key or a redirect gets no better by asking again."""
    scorer = make(address)
    server.way = lambda handler, text: answer(handler, text, "{}", status, [("Location", address)])
    server.failures = 1000
    with pytest.raises(GateInconclusive, match=f"after 1 try: HTTP {status}"):
        scorer.score(["break"])
    assert server.failures == 999


def test_waits_as_long_as_the_server_asks(server, address):
    scorer = make(address)
    server.way, server.failures = lambda h, t: answer(h, t, "{}", 429, [("Retry-After", "1")]), 1
    scorer.score(["break"])
    first, second = (moment for _, body, moment in server.asked if body["comment"]["text"] == "break")
    assert second - first >= 1


def test_no_more_requests_a_second_than_the_rate(server, address):
    """21 requests at 40 a second cannot start in less than half a second, however many threads there are."""
    scorer = make(address, rate=40.0)
    begun = time.monotonic()
    scorer.score([f"text {number}" for number in range(21)])
    assert time.monotonic() - begun >= 0.5


def test_one_failure_stops_the_rest(server, address):
    scorer = make(address, rate=200.0, tries=1)
    server.way, server.failures = WAYS["unavailable"], 1000
    before = len(server.asked)
    with pytest.raises(GateInconclusive, match="HTTP 503"):
        scorer.score(["break", *(f"text {number}" for number in range(400))])
    assert len(server.asked) - before < 200


def test_the_identity_is_of_the_scores(server, address, monkeypatch):
    """The same server is the same scorer, whatever its pace; one that scores otherwise is another."""
    scorer = make(address)
    assert scorer.identity == make(address, rate=900.0, tries=3).identity
    assert scorer.identity.name == "perspective" and scorer.identity.version == address
    assert make(address, labels=("toxicity",)).identity != scorer.identity
    monkeypatch.setitem(globals(), "VALUE", VALUE.replace("0.1", "0.2"))
    assert make(address).identity != scorer.identity


def test_by_name_with_options(server, address, monkeypatch):
    """What the option `scorer` says, with the key from the environment."""
    monkeypatch.setenv(KEY, "from-outside")
    scorer = open_scorer(f"{address}#labels=toxicity&rate=5000&timeout=2&tries=1&pause=0&language=de")
    assert scorer.labels == ("toxicity",)
    path, body, _ = server.asked[-1]
    assert path.endswith("?key=from-outside") and body["languages"] == ["de"]
    assert "from-outside" not in " ".join(scorer.identity)


@pytest.mark.parametrize(
    ("tail", "message"),
    [("#speed=3", "no option"), ("#rate=fast", "no option"), ("#rate=0", "above 0"), ("#tries=0", "one try"),
     ("#rate=nan", "above 0"), ("?key=abc", "no place for a secret"), ("/a b", "is no address of a scorer")],
)  # fmt: skip
def test_bad_options(tail, message, address):
    with pytest.raises(BadInput, match=message):
        open_scorer(address + tail)


def test_a_key_goes_nowhere_in_the_open(monkeypatch):
    """Refused before anything is sent; without a key, encrypted, or to this host itself, it is asked."""

    def asked(self, request, timeout):
        raise OSError("asked")

    monkeypatch.setattr(urllib.request.OpenerDirector, "open", asked)
    for host in ("example.org", "127.0.0.1.example.org", "localhost.example.org:80", "10.0.0.1", "[2001:db8::1]"):
        with pytest.raises(BadInput, match="could read the key in PERSPECTIVE_API_KEY: give its https://"):
            make(f"http://{host}/", key="k")
        for address, key in ((f"https://{host}/", "k"), (f"http://{host}/", None)):
            with pytest.raises(GateInconclusive, match="asked"):
                make(address, key=key, tries=1)
    for host in ("127.0.0.1", "127.1.2.3:8080", "localhost", "[::1]"):
        with pytest.raises(GateInconclusive, match="asked"):
            make(f"http://{host}/", key="k", tries=1)


def test_a_server_that_is_not_there():
    """Exit 4: nothing could be measured."""
    with pytest.raises(GateInconclusive, match=r"127\.0\.0\.1:9 gave no score after 2 tries"):
        make("http://127.0.0.1:9/")
