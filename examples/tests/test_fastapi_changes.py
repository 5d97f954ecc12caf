"""Server-sent events: from NOTIFY in the database to those who listen."""

import pytest

from service import rows, running

OTHERS = "pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
LISTENING = f"SELECT pid FROM {OTHERS} AND query LIKE 'LISTEN%'"


def first_event(stream):
    """The data of the first event since the service has been listening."""
    while not (count := event(stream)):
        pass
    return count


def event(stream):
    """The data of the next event; comments that keep the connection alive are left out."""
    while not (line := stream.readline()).startswith(b"data:"):
        assert line, "the stream has ended"
    return int(line[len("data:") :])


@pytest.fixture
def service(dsn):
    with running("fastapi_tasks", dsn) as service:
        yield service


def test_every_change_is_told_whoever_makes_it(service, side):
    with service.open("GET", "/api/changes") as one, service.open("GET", "/api/changes") as other:
        assert one.headers["Content-Type"].startswith("text/event-stream")
        assert first_event(one) == first_event(other) == 1
        project = service.post("/api/projects", {"name": "told"}).json()
        assert event(one) == event(other) == 2
        rows(side, "UPDATE project SET name = 'changed by psql' WHERE id = %s", (project["id"],))
        assert event(one) == event(other) == 3
        # What listens must not keep the service from ending.
        assert service.stop() == ""
        assert b"data:" not in one.read() + other.read()


def test_what_is_rolled_back_is_not_told(service, side):
    with service.open("GET", "/api/changes") as stream:
        seen = first_event(stream)
        rows(side, "BEGIN; DELETE FROM task; ROLLBACK")
        rows(side, "DELETE FROM task")
        assert event(stream) == seen + 1


def test_a_lost_connection_is_made_again(service, side):
    service.get("/api/projects")
    with service.open("GET", "/api/changes") as stream:
        seen = first_event(stream)
        [(listening,)] = rows(side, LISTENING)
        rows(side, f"SELECT pg_terminate_backend(pid) FROM {OTHERS}")
        assert service.get("/api/projects").status == 200
        # It tells that something may have been missed, and then goes on.
        assert event(stream) == seen + 1
        [(again,)] = rows(side, LISTENING)
        assert again != listening
        rows(side, "DELETE FROM task")
        assert event(stream) == seen + 2
    assert "not listening for 1 s" in service.stop()


def test_a_page_that_went_away_is_forgotten(service, side):
    for _ in range(3):
        with service.open("GET", "/api/changes") as stream:
            first_event(stream)
    rows(side, "DELETE FROM task")
    assert service.stop() == ""
