"""Values that psycopg2's dialect leaves to others: SQLAlchemy's ranges in SQL texts, multiranges,
and objects of `ipaddress`."""

import ipaddress
import re
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from psycopg2.extensions import (
    AsIs,
    ISQLQuote,
    QuotedString,
    adapters,
    new_array_type,
    new_type,
    register_type,
    string_types,
)
from sqlalchemy.dialects.postgresql import ranges

# The OID of each multirange type of PostgreSQL 14 and newer: that of its array, of its range.
_MULTIRANGES = {
    4451: (6150, 3904),  # int4
    4532: (6151, 3906),  # num
    4533: (6152, 3908),  # ts
    4534: (6153, 3910),  # tstz
    4535: (6155, 3912),  # date
    4536: (6157, 3926),  # int8
}
_RANGE = re.compile(r'[\[(](?:"(?:[^"\\]|\\.|"")*"|[^"\])])*[\])]')

_INET, _INETS, _CIDR, _CIDRS = 869, 1041, 650, 651


def register_adapters() -> None:
    """Let SQLAlchemy's ranges be parameters of SQL texts; what the program has chosen stays."""
    _adapt(ranges.Range, lambda value: QuotedString(str(value)))
    _adapt(ranges.MultiRange, lambda value: QuotedString(f"{{{','.join(map(str, value))}}}"))


def register_multiranges(raw: Any) -> None:
    """Let a connection give multiranges as lists of psycopg2's ranges."""
    for oid, (array, of_range) in _MULTIRANGES.items():
        register_type(new_type((oid,), "MULTIRANGE", _multirange(of_range)), raw)
        kind = raw.string_types[oid]
        register_type(new_array_type((array,), "MULTIRANGES", kind), raw)


def _multirange(of_range: int) -> Callable[[Any, Any], Any]:
    def cast(value: str | None, cursor: Any) -> Any:
        if value is None:
            return None
        range_of = string_types[of_range]
        return [range_of(text, cursor) for text in _RANGE.findall(value)]

    return cast


def register_inet(raw: Any) -> None:
    """Let a connection give inet and cidr as objects of `ipaddress`, and take them."""
    for version in (4, 6):
        for kind, name in (("Address", "inet"), ("Interface", "inet"), ("Network", "cidr")):
            cls = getattr(ipaddress, f"IPv{version}{kind}")
            _adapt(cls, partial(_quoted, name))
    inet, cidr = new_type((_INET,), "INET", _inet), new_type((_CIDR,), "CIDR", _cidr)
    inets = new_array_type((_INETS,), "INETARRAY", inet)
    cidrs = new_array_type((_CIDRS,), "CIDRARRAY", cidr)
    for caster in (inet, cidr, inets, cidrs):
        register_type(caster, raw)


def _quoted(name: str, value: Any) -> AsIs:
    return AsIs(f"'{value}'::{name}")


def _inet(value: Any, cursor: Any) -> Any:
    if value is None:
        return None
    return ipaddress.ip_interface(value) if "/" in value else ipaddress.ip_address(value)


def _cidr(value: Any, cursor: Any) -> Any:
    return None if value is None else ipaddress.ip_network(value)


def _adapt(cls: type, adapter: Callable[[Any], Any]) -> None:
    adapters.setdefault((cls, ISQLQuote), adapter)


if TYPE_CHECKING:
    _MultiRange = ranges.AbstractMultiRangeImpl[Any]
else:
    _MultiRange = ranges.AbstractMultiRangeImpl


class MultiRange(_MultiRange):
    """Multiranges of typed columns: SQLAlchemy's, out of lists of psycopg2's ranges."""

    def bind_processor(self, dialect: Any) -> Any:
        def process(value: Any) -> Any:
            if value is None or isinstance(value, (str, ranges.MultiRange)):
                return value
            return ranges.MultiRange(value)

        return process

    def result_processor(self, dialect: Any, coltype: Any) -> Any:
        def process(value: Any) -> Any:
            return None if value is None else ranges.MultiRange(map(_sqlalchemy_range, value))

        return process


def _sqlalchemy_range(value: Any) -> ranges.Range[Any]:
    if value.isempty:
        return ranges.Range(empty=True)
    return ranges.Range(value.lower, value.upper, bounds=value._bounds)
