"""The polls: JSON, pages, and what of them is in the database."""

from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlencode

import pytest

from service import rows, running


@pytest.fixture(scope="module")
def service(dsn):
    with running("aiohttp_polls", dsn) as service:
        yield service


@pytest.fixture
def poll(service, request):
    new = {"question": request.node.name, "choices": ["yes", "no"], "tags": ["a b", "c"]}
    answer = service.post("/api/polls", new)
    assert answer.status == 201
    assert answer.headers["Location"] == f"/api/polls/{answer.json()['id']}"
    return answer.json()


def votes(poll):
    return [choice["votes"] for choice in poll["choices"]]


def test_a_poll_comes_back_and_is_in_the_database(service, poll, side):
    assert service.get(f"/api/polls/{poll['id']}").json() == poll
    assert poll["tags"] == ["a b", "c"]
    assert [(one["number"], one["label"]) for one in poll["choices"]] == [(1, "yes"), (2, "no")]
    sql = "SELECT question, tags, asked FROM poll WHERE id = %s"
    [(question, tags, asked)] = rows(side, sql, (poll["id"],))
    assert (question, tags) == (poll["question"], poll["tags"])
    assert asked.isoformat() == poll["asked"]
    listed = service.get("/api/polls").json()[0]
    assert listed == {k: v for k, v in {**poll, "votes": 0}.items() if k != "choices"}


def test_each_voter_has_one_vote(service, poll, side):
    path = f"/api/polls/{poll['id']}/votes"
    assert service.post(path, {"choice": 2, "voter": "Ann"}).status == 201
    again = service.post(path, {"choice": 1, "voter": "Ann"})
    assert (again.status, again.json()) == (409, {"error": "Ann has voted already"})
    now = service.post(path, {"choice": 2, "voter": "Bob"})
    assert votes(now.json()) == [0, 2]
    assert service.get("/api/polls").json()[0]["votes"] == 2


def test_a_vote_for_nothing_leaves_no_ballot(service, poll, side):
    path = f"/api/polls/{poll['id']}/votes"
    refused = service.post(path, {"choice": 3, "voter": "Ann"})
    assert (refused.status, refused.json()) == (404, {"error": "there is no such choice"})
    assert rows(side, "SELECT voter FROM ballot WHERE poll_id = %s", (poll["id"],)) == []
    assert service.post(path, {"choice": 1, "voter": "Ann"}).status == 201


def test_votes_at_the_same_time_are_all_counted(service, poll):
    path = f"/api/polls/{poll['id']}/votes"
    with ThreadPoolExecutor(8) as threads:
        ballots = [{"choice": 1, "voter": f"voter {n // 2}"} for n in range(80)]
        statuses = [
            a.status for a in threads.map(lambda ballot: service.post(path, ballot), ballots)
        ]
    assert sorted(statuses) == [201] * 40 + [409] * 40
    assert votes(service.get(f"/api/polls/{poll['id']}").json()) == [40, 0]


def test_the_same_question_is_not_asked_twice(service, poll, side):
    answer = service.post("/api/polls", {"question": poll["question"], "choices": ["a", "b"]})
    assert answer.status == 409
    assert rows(side, "SELECT label FROM choice WHERE label IN ('a', 'b')") == []


def test_a_deleted_poll_is_gone_with_its_choices(service, poll, side):
    path = f"/api/polls/{poll['id']}"
    service.post(f"{path}/votes", {"choice": 1, "voter": "Ann"})
    assert service.ask("DELETE", path).status == 204
    assert service.ask("DELETE", path).status == 404
    assert service.get(path).status == 404
    assert rows(side, "SELECT label FROM choice WHERE poll_id = %s", (poll["id"],)) == []


@pytest.mark.parametrize("path", ["/api/polls/999999999", "/api/polls/x", "/api/nothing"])
def test_what_does_not_exist_is_404(service, path):
    answer = service.get(path)
    assert answer.status == 404
    assert answer.json()["error"]


@pytest.mark.parametrize(
    "new",
    [
        [],
        {},
        {"question": "?", "choices": ["one"]},
        {"question": "?", "choices": ["same", " same "]},
        {"question": "?", "choices": "ab"},
        {"question": "?", "choices": ["a", 1]},
        {"question": " ", "choices": ["a", "b"]},
        {"question": "NUL \0", "choices": ["a", "b"]},
        {"question": "half a character \ud800", "choices": ["a", "b"]},
        {"question": "x" * 201, "choices": ["a", "b"]},
        {"question": "?", "choices": ["a", "b"], "tags": [None]},
    ],
    ids=str,
)
def test_a_bad_poll_is_400(service, new):
    before = service.get("/api/polls").json()
    assert service.post("/api/polls", new).status == 400
    assert service.get("/api/polls").json() == before


@pytest.mark.parametrize(
    "vote",
    [
        {"choice": "1", "voter": "Ann"},
        {"choice": True, "voter": "Ann"},
        {"choice": 10**12, "voter": "Ann"},
        {"choice": 1},
    ],
    ids=str,
)
def test_a_bad_vote_is_400(service, poll, vote):
    answer = service.post(f"/api/polls/{poll['id']}/votes", vote)
    assert answer.status == 400
    assert "must be" in answer.json()["error"]


def test_what_is_no_json_is_400(service):
    answer = service.ask("POST", "/api/polls", "{")
    assert (answer.status, answer.json()) == (400, {"error": "the body must be JSON"})


def test_the_pages_ask_and_vote(service, side):
    form = urlencode({"question": "<b>Tea & cake?", "choices": "yes\r\n<i>no\r\n"})
    answer = service.submit("/polls", form)
    assert answer.status == 303
    path = answer.headers["Location"]
    assert service.submit(f"{path}/votes", "choice=2&voter=Ann").headers["Location"] == path
    page = service.get(path)
    assert page.headers["Content-Type"] == "text/html; charset=utf-8"
    assert "<h1>&lt;b&gt;Tea &amp; cake?</h1>" in page.body
    assert "&lt;i&gt;no" in page.body
    assert "Votes: 1" in page.body
    assert "&lt;b&gt;Tea &amp; cake?</a> (1)" in service.get("/").body


@pytest.mark.parametrize(
    ("path", "form", "status"),
    [
        ("/polls", "question=x&choices=one", 400),
        ("/polls/999999999/votes", "choice=1&voter=Ann", 404),
        ("/polls/999999999/votes", "choice=first&voter=Ann", 400),
    ],
)
def test_a_page_tells_what_is_wrong(service, path, form, status):
    answer = service.submit(path, form)
    assert answer.status == status
    assert "That did not work" in answer.body


def test_lost_connections_are_replaced(dsn, poll, side):
    others = "pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
    path = f"/api/polls/{poll['id']}"
    with running("aiohttp_polls", dsn) as service:
        assert service.get(path).json() == poll
        rows(side, f"SELECT pg_terminate_backend(pid) FROM {others}")
        # The service may be asked before it has heard of it, but not for long.
        assert 200 in (service.get(path).status for _ in range(100))
        assert {service.get(path).status for _ in range(10)} == {200}
        service.stop()
