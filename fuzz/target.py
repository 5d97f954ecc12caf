"""What is fuzzed: one input is one case of tests/forge.py, or one statement with parameters.

Run by `python -m fuzz`, under libFuzzer and AddressSanitizer; its arguments are libFuzzer's.
"""

import os
import struct
import sys

import atheris
from forge import TEXTS, Forge, packed, values

import aiopgx
from aiopgx._statements import merged

FORM = 1  # the index of the byte that says which of both
IS_STATEMENT = 0x80


def statement(data):
    """An operation and its parameters, made of any bytes."""
    operation, *given = [part or b"" for part in values(data)]
    parameters = [PARAMETERS[part[:1]](part[1:]) for part in given if part[:1] in PARAMETERS]
    if len(given) % 3 == 0:
        parameters = tuple(parameters)
    elif len(given) % 3 == 1:
        parameters = dict(zip("abcdefgh", parameters, strict=False))
    return text(operation), parameters


def text(data):
    return data.decode("utf-8", "surrogateescape")


PARAMETERS = {
    b"n": lambda data: None,
    b"b": bool,
    b"i": lambda data: int.from_bytes(data, "little", signed=True),
    b"f": lambda data: struct.unpack("<d", data[:8].ljust(8, b"\0"))[0],
    b"s": text,
    b"y": bytes,
    b"l": lambda data: [text(data)],
}


def check_statement(raw, operation, parameters):
    """What is merged natively is what psycopg2 would send."""
    got = merged(operation, parameters)
    if got is not None:
        with raw.cursor() as cursor:
            expected = cursor.mogrify(operation, parameters)
        assert got == expected, f"{operation!r}, {parameters!r}\n{got}\nbut psycopg2:\n{expected}"


STATEMENTS = [
    (b"SELECT %s, %s, '%%'", b"i\x01", b"sit's"),
    (b"SELECT %(a)s %(b)s %(a)s", b"f\x01\x02\x03", b"s\\"),
    (b"INSERT INTO t VALUES (%s, %s, %s)", b"n", b"b1", b"i" + b"\xff" * 9),
    (b"SELECT '%s' /* %s */ %%(a)s %", b"s\xc3\xa4", b"lx", b"y\0"),
]


def seeds(forge):
    """Each form for each type, in rows of a few, and fetched in one of the many ways."""
    types = len(forge.oids)
    for number in range(types):
        for turn, start in enumerate(range(0, len(TEXTS), 6)):
            way = (number * 37 + turn * 66) & 0xFF
            form = (0, 2, 2, 3, 2, 2, 10, 11)[(number + turn) % 8]
            head = bytes([way, form, number, (number * 7 + turn) % types])
            yield head + packed([*TEXTS[start : start + 6], None])
    for pieces in STATEMENTS:
        yield bytes([0, IS_STATEMENT]) + packed(pieces)


def write_seeds(forge, corpus):
    for number, seed in enumerate(seeds(forge)):
        with open(os.path.join(corpus, f"seed-{number}"), "wb") as file:
            file.write(seed)


def main():
    where = os.path.dirname(aiopgx.__file__)
    assert where == os.environ["FUZZ_PACKAGE"], f"{where} is not what was built for this"
    forge = Forge(os.environ["FUZZ_DSN"])
    write_seeds(forge, os.environ["FUZZ_CORPUS"])

    def target(data):
        if data[FORM : FORM + 1] >= bytes([IS_STATEMENT]):
            check_statement(forge.raws["UTF8"], *statement(data[FORM + 1 :]))
        else:
            forge.check(forge.case(data))

    atheris.Setup(sys.argv, target)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
