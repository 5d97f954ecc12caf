"""Which servers a connection string names, in which order; how names are resolved.

libpq resolves names and tries several hosts by itself, but in a way that blocks the event loop, and
without a time limit for each on asynchronous connections. So each address is an attempt of its own,
a connection with one `host` and `hostaddr`; libpq goes on doing what belongs to one server.
"""

import asyncio
import ipaddress
import os
import random
import re
import socket
from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple

import psycopg2
from psycopg2.extensions import make_dsn, parse_dsn

from ._keywords import explained

# What is looked up in the environment, as libpq does.
_ENVIRONMENT = {
    "host": "PGHOST",
    "hostaddr": "PGHOSTADDR",
    "port": "PGPORT",
    "target_session_attrs": "PGTARGETSESSIONATTRS",
    "load_balance_hosts": "PGLOADBALANCEHOSTS",
    "service": "PGSERVICE",
}
# Arguments of psycopg2.connect() that are no parameters of libpq's.
_ARGUMENTS = ("async", "async_", "connection_factory", "cursor_factory")

# The server itself has refused, with "FATAL:  " in its own language.
_SERVER_REFUSED = re.compile(r"(connection to server .* failed: )?[^\s:]+:  ")
_NOT_NOW = "the database system is "  # starting up, shutting down, in recovery mode ...


class Host(NamedTuple):
    """One server, by name or address; None is libpq's default."""

    host: str | None
    hostaddr: str | None
    port: str | None

    @property
    def is_name(self) -> bool:
        """Whether there is a name to resolve."""
        if self.hostaddr or not self.host or self.host[0] in "/@":
            return False
        try:
            ipaddress.ip_address(self.host)
        except ValueError:
            return True
        return False

    def describe(self) -> str:
        """The server as libpq names it in errors."""
        if self.host and self.host[0] in "/@":
            return f'on socket "{self.host}/.s.PGSQL.{self.port or 5432}"'
        address = f" ({self.hostaddr})" if self.host and self.hostaddr else ""
        return f'at "{self.host or self.hostaddr or ""}"{address}, port {self.port or 5432}'

    def parameters(self) -> dict[str, str]:
        """The parameters that lead to this server alone."""
        return {name: value for name, value in self._asdict().items() if value is not None}


class Plan(NamedTuple):
    """The servers to try, for connections that libpq alone does not serve well.

    dsn: the whole connection string, without the password.
    sessions: values of target_session_attrs, each for a round of all servers.
    shuffled: servers, and addresses of a name, are tried in random order.
    """

    dsn: str
    hosts: list[Host]
    sessions: list[str | None]
    shuffled: bool

    def in_order(self, hosts: list[Host]) -> list[Host]:
        return random.sample(hosts, len(hosts)) if self.shuffled else hosts


def plan(dsn: str | None, arguments: dict[str, Any]) -> Plan | None:
    """The plan for the arguments of psycopg2.connect(); None if libpq can do it: one address.

    Raises psycopg2's exceptions about the arguments.
    """
    given = {name: value for name, value in arguments.items() if name not in _ARGUMENTS}
    failure = None
    try:
        whole = make_dsn(dsn, **given)
    except psycopg2.ProgrammingError as error:
        failure = explained(error, given)
    if failure is not None:
        raise failure
    parameters = parse_dsn(whole)
    for name, variable in _ENVIRONMENT.items():
        if name not in parameters and os.environ.get(variable):
            parameters[name] = os.environ[variable]
    if "service" in parameters:
        return None  # a file of libpq's, which may name the hosts
    hosts = _hosts(parameters)
    if hosts is None or (len(hosts) == 1 and not hosts[0].is_name):
        return None
    sessions: list[str | None] = [None]
    if parameters.get("target_session_attrs") == "prefer-standby":
        sessions = ["standby", "any"]
    if "password" in parse_dsn(whole):
        whole = make_dsn(**{**parse_dsn(whole), "password": "xxx"})  # as psycopg2 shows it
    return Plan(whole, hosts, sessions, parameters.get("load_balance_hosts") == "random")


def _hosts(parameters: dict[str, str]) -> list[Host] | None:
    """The servers that are named; None if the numbers don't match, which libpq has an error for."""
    names, addresses, ports = (
        parameters[name].split(",") if parameters.get(name) else []
        for name in ("host", "hostaddr", "port")
    )
    count = max(len(names), len(addresses), 1)
    if (names and addresses and len(names) != len(addresses)) or len(ports) not in (0, 1, count):
        return None
    ports = ports * count if len(ports) == 1 else ports or [""] * count
    names, addresses = names or [""] * count, addresses or [""] * count
    return [
        Host(name or None, address or None, port or None)
        for name, address, port in zip(names, addresses, ports, strict=True)
    ]


async def connect_to_first(
    plan: Plan,
    loop: asyncio.AbstractEventLoop,
    end: float | None,
    attempt: Callable[[dict[str, str]], Awaitable[None]],
) -> None:
    """Call `attempt` with the parameters of one server after the other, until one lets us in.

    end: when to give up, in the loop's time; `attempt` is to see to it, too.

    Raises `psycopg2.OperationalError`, which names each server with its reason, and
    `asyncio.TimeoutError`.
    """
    errors: list[tuple[Host, psycopg2.OperationalError]] = []
    for session in plan.sessions:
        more = {} if session is None else {"target_session_attrs": session}
        for host in plan.in_order(plan.hosts):
            try:
                addresses = await _addresses(host, loop, end)
            except psycopg2.OperationalError as error:
                errors.append((host, error))
                continue
            for address in plan.in_order(addresses):
                try:
                    return await attempt({**address.parameters(), **more})
                except psycopg2.OperationalError as error:
                    errors.append((address, error))
                    if not _goes_on(error):
                        raise _failure(plan, errors) from None
    raise _failure(plan, errors)


async def _addresses(host: Host, loop: asyncio.AbstractEventLoop, end: float | None) -> list[Host]:
    if not host.is_name:
        return [host]
    lookup = loop.create_task(loop.getaddrinfo(host.host, None, type=socket.SOCK_STREAM))
    try:
        await asyncio.wait([lookup], timeout=None if end is None else end - loop.time())
    finally:
        lookup.cancel()
    if not lookup.done():
        raise asyncio.TimeoutError(f'the address of host "{host.host}" was not found in time')
    error = lookup.exception()
    if isinstance(error, (OSError, UnicodeError)):
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise psycopg2.OperationalError(
            f'could not translate host name "{host.host}" to address: {reason}\n'
        )
    found = lookup.result()
    addresses = dict.fromkeys(str(sockaddr[0]) for *_, sockaddr in found)
    return [host._replace(hostaddr=address) for address in addresses]


def _goes_on(error: BaseException) -> bool:
    """Whether another server is worth a try, as libpq sees it: not if one has refused us."""
    text = str(error)
    return _NOT_NOW in text or _SERVER_REFUSED.match(text) is None


def _failure(
    plan: Plan, errors: list[tuple[Host, psycopg2.OperationalError]]
) -> psycopg2.OperationalError:
    """The error of all attempts: each server with its reason."""
    if len(plan.hosts) == len(errors) == 1:
        return errors[0][1]
    lines = []
    for host, error in errors:
        text = str(error)
        if not text.startswith(("connection to server", "could not translate")):
            text = f"connection to server {host.describe()} failed: {text}"
        lines.append(text.rstrip("\n"))
    return psycopg2.OperationalError("\n".join(lines) + "\n")


def connect_timeout(raw: Any) -> int | None:
    """Seconds for one attempt, from libpq's options, service file or environment; None: no limit.

    libpq leaves it to those who wait for it.
    """
    value = raw.info.dsn_parameters.get("connect_timeout") or "0"
    try:
        return max(int(value), 0) or None
    except ValueError:
        raise psycopg2.OperationalError(
            f'invalid integer value "{value}" for connection option "connect_timeout"'
        ) from None


def expired(raw: Any) -> psycopg2.OperationalError:
    """The error of an attempt whose connect_timeout is over, as libpq has it."""
    shown = raw.info.dsn_parameters
    host = Host(shown.get("host"), shown.get("hostaddr"), shown.get("port"))
    return psycopg2.OperationalError(
        f"connection to server {host.describe()} failed: timeout expired\n"
    )
