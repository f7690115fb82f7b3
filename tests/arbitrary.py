"""Values and bytes of any kind, and damage to good ones: for tests of whatever reads a file."""

import copy
import os

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from training.errors import TheodoliteError

EXAMPLES = os.environ.get("THEODOLITE_EXAMPLES")
look = settings(
    max_examples=int(EXAMPLES or 50),
    derandomize=EXAMPLES is None,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)

WORDS = (
    "messages prompt completion chosen rejected margin source role content type text image audio user assistant system "
    "id stratum toxic non-toxic toxicity path bytes a.png ../a.png \0.png sft ppo out data seed null .nan 1e999 "
    "packaged 2001-99-99 <<: &a *a"
).split(" ")
TEXT = st.sampled_from(WORDS) | st.text(st.characters(), max_size=8)  # half surrogate pairs too
PLAIN = st.none() | st.booleans() | st.integers() | st.floats() | TEXT | st.sampled_from([10**400, -1, 2**63])
ANY = st.recursive(PLAIN, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=4))
LINES = st.binary(max_size=200) | st.lists(st.sampled_from([*WORDS, *'{}[]":,\\\n -']), max_size=30).map(
    lambda parts: "".join(parts).encode()
)


@st.composite
def damaged(draw, value):
    """A JSON value with one to three places replaced by anything, or left out."""
    value = copy.deepcopy(value)
    for _ in range(draw(st.integers(1, 3))):
        place, inner = None, value
        while inner and isinstance(inner, (dict, list)) and (place is None or draw(st.booleans())):
            place = inner
            key = draw(st.sampled_from(sorted(place) if isinstance(place, dict) else range(len(place))))
            inner = place[key]
        if place is None:
            continue
        if draw(st.integers(0, 3)):
            place[key] = draw(ANY)
        else:
            del place[key]
    return value


def expected(call):
    """Whatever a call returns; None when it is refused in words."""
    try:
        return call()
    except TheodoliteError as error:
        assert str(error)
        return None


@st.composite
def spoiled(draw, contents):
    """A file's bytes, most often cut short, with up to six of them changed."""
    content, cut = draw(st.sampled_from(contents)), draw(st.integers(0, 400))
    content = bytearray(content[:cut] if cut < 200 else content)
    for place, byte in draw(st.lists(st.tuples(st.integers(0, 300), st.integers(0, 255)), max_size=6)):
        if content:
            content[place % len(content)] = byte
    return bytes(content)
