"""Values of any bytes for every type: what psycopg2 makes of them, or its exception.

`make fuzz` goes on from here, guided by what of the decoders' code was reached.
"""

import pytest
from forge import ENCODINGS, FACTORIES, FETCHES, TEXTS, ZONES, Case, Forge
from hypothesis import given
from hypothesis import strategies as st
from support import LONG


@pytest.fixture(scope="module")
def forge(dsn):
    forge = Forge(dsn)
    yield forge
    forge.close()


TRUNCATED = pytest.mark.xfail(
    strict=True, reason="a json or numeric part fails before the whole is seen to be malformed"
)
NUL = pytest.mark.xfail(strict=True, reason="psycopg2 reads a number up to a NUL byte")


@TRUNCATED
@pytest.mark.parametrize("encoding", ENCODINGS)
def test_every_form_for_every_type(forge, encoding):
    rows = [[text] for text in [*TEXTS, None] if b"\0" not in (text or b"")]
    for oid in forge.oids:
        forge.check(Case([oid], rows, encoding=encoding, fetch="fetchone"))


@NUL
def test_nul_bytes(forge):
    rows = [[text] for text in TEXTS if b"\0" in text]
    for oid in forge.oids:
        forge.check(Case([oid], rows, fetch="fetchone"))


@TRUNCATED
def test_every_beginning_of_every_form(forge):
    """Of one form in seven for each type, or of all in a long run."""
    for i, oid in enumerate(forge.oids):
        texts = TEXTS if LONG else TEXTS[i % 7 :: 7]
        rows = [[text[:end]] for text in texts for end in range(len(text))]
        forge.check(Case([oid], rows, fetch="fetchone"))


@st.composite
def cut_and_pasted(draw):
    """Pieces of two forms, with a few bytes between."""
    form = st.sampled_from(TEXTS)
    first, second = draw(form), draw(form)
    i, j = draw(st.integers(0, len(first))), draw(st.integers(0, len(second)))
    return first[:i] + draw(st.binary(max_size=3)) + second[j:]


VALUES = st.none() | st.sampled_from(TEXTS) | cut_and_pasted() | st.binary(max_size=40)


@given(data=st.data())
def test_rows_of_any_bytes(forge, data):
    """Each oid is drawn alone, so that a failure names the smallest case."""
    oids = data.draw(st.lists(st.sampled_from(forge.oids), min_size=1, max_size=3))
    rows = st.lists(st.tuples(*[VALUES] * len(oids)), max_size=4)
    forge.check(
        Case(
            oids,
            [list(row) for row in data.draw(rows)] * data.draw(st.sampled_from([1, 2, 20])),
            ["same"] * len(oids) if data.draw(st.booleans()) else [],
            data.draw(st.sampled_from(FACTORIES)),
            data.draw(st.sampled_from(ZONES)),
            data.draw(st.sampled_from(ENCODINGS)),
            data.draw(st.sampled_from([*FETCHES])),
        )
    )


@given(text=st.binary(max_size=60))
def test_cases_made_of_bytes(forge, text):
    forge.check(forge.case(text))
