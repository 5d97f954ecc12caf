"""What both examples have in common: how they start, stop, and what stays."""

import re
import signal
import socket

import psycopg2
import pytest
from aiopgx.tools import server

from service import SECONDS, rows, running, starting

# name -> (path, what to post there, the name of its text)
EXAMPLES = {
    "fastapi_tasks": ("/api/projects", {"name": "kept"}, "name"),
    "aiohttp_polls": ("/api/polls", {"question": "kept", "choices": ["a", "b"]}, "question"),
}


@pytest.fixture(params=EXAMPLES)
def name(request):
    return request.param


def test_a_restart_keeps_the_data(name, dsn):
    path, new, key = EXAMPLES[name]
    with running(name, dsn) as service:
        assert service.post(path, new).status == 201
        assert service.stop(signal.SIGTERM) == ""
    with running(name, dsn) as service:
        assert [one[key] for one in service.get(path).json()] == ["kept"]
        assert service.stop(signal.SIGINT) == ""


def test_a_server_of_its_own_goes_with_it(name):
    try:
        server.find_binaries()
    except server.ServerError as error:
        pytest.skip(str(error))
    path, new, _ = EXAMPLES[name]
    with running(name, None) as service:
        assert service.post(path, new).status == 201
        own = re.search(r"PostgreSQL: (\S+)", service.output)[1]
        psycopg2.connect(own).close()
        assert service.stop() == ""
    with pytest.raises(psycopg2.OperationalError, match="refused"):
        psycopg2.connect(own)


def test_two_start_at_the_same_time_on_an_empty_database(name, dsn, side):
    rows(side, "DROP SCHEMA public CASCADE; CREATE SCHEMA public")
    with starting(name, dsn) as one, starting(name, dsn) as other:
        for service in (one, other):
            service.wait_until_it_listens()
            assert service.get(EXAMPLES[name][0]).json() == []
            assert service.stop() == ""


def test_a_port_in_use_is_an_error_before_anything_is_started(name, dsn):
    with (
        socket.create_server(("127.0.0.1", 0)) as taken,
        starting(name, dsn, taken.getsockname()[1]) as service,
    ):
        assert service.process.wait(SECONDS) == 1
        assert "in use" in service.read_errors()
