"""The tasks' API, and what of it is in the database."""

import csv
import datetime as dt
import uuid

import pytest

from service import rows, running, until

NOBODY = uuid.UUID(int=0)
IN_TRANSACTION = """
    SELECT query FROM pg_stat_activity
    WHERE datname = current_database() AND state = 'idle in transaction'
"""


@pytest.fixture(scope="module")
def service(dsn):
    with running("fastapi_tasks", dsn) as service:
        yield service


@pytest.fixture
def project(service):
    answer = service.post("/api/projects", {"name": f"project {uuid.uuid4()}"})
    assert answer.status == 201
    return answer.json()


@pytest.fixture
def new_task(service, project):
    def new_task(title, **values):
        path = f"/api/projects/{project['id']}/tasks"
        answer = service.post(path, {"title": title, **values})
        assert answer.status == 201, answer
        return answer.json()

    return new_task


def test_a_task_of_every_type_comes_back_and_is_in_the_database(service, project, new_task, side):
    details = {"links": ["https://example.org"], "estimate": 1.5, "ünicode": None}
    tags = ["docs", 'a "b", c']
    task = new_task("  Write it down ", due="2030-02-28", tags=tags, details=details)
    assert (task["title"], task["due"], task["done_at"]) == ("Write it down", "2030-02-28", None)
    assert (task["tags"], task["details"]) == (tags, details)
    assert task["project_id"] == project["id"]
    assert service.get(f"/api/tasks/{task['id']}").json() == task
    assert service.get(f"/api/projects/{project['id']}").json() == {**project, "tasks": [task]}

    sql = "SELECT title, due, tags, details, created_at, done_at FROM task WHERE id = %s"
    [(*stored, created_at, done_at)] = rows(side, sql, (task["id"],))
    assert stored == ["Write it down", dt.date(2030, 2, 28), tags, details]
    assert done_at is None
    assert created_at == dt.datetime.fromisoformat(task["created_at"].replace("Z", "+00:00"))


def test_projects_are_listed_with_their_tasks_in_order(service, project, new_task):
    titles = [new_task(title)["title"] for title in ("b", "a", "c")]
    [listed] = [one for one in service.get("/api/projects").json() if one["id"] == project["id"]]
    assert [task["title"] for task in listed["tasks"]] == titles


def test_tasks_are_found_by_tags_and_by_being_done(service, new_task):
    new_task("one", tags=["red", "round"])
    two = new_task("two", tags=["red"])
    assert service.ask("PATCH", f"/api/tasks/{two['id']}", {"done": True}).status == 200

    def titles(query):
        return [task["title"] for task in service.get(f"/api/tasks?{query}").json()]

    assert titles("tag=red") == ["one", "two"]
    assert titles("tag=red&tag=round") == ["one"]
    assert titles("tag=red&done=true") == ["two"]
    assert titles("tag=red&done=false") == ["one"]


def test_an_update_changes_what_it_names_and_no_more(service, new_task):
    task = new_task("before", tags=["kept"], due="2030-01-01")
    path = f"/api/tasks/{task['id']}"
    done = service.ask("PATCH", path, {"done": True}).json()
    assert done.pop("done_at") is not None
    assert done == {k: v for k, v in task.items() if k != "done_at"}
    again = service.ask("PATCH", path, {"done": True, "title": "after"}).json()
    assert again["title"] == "after"
    assert service.get(path).json() == again
    undone = service.ask("PATCH", path, {"done": False, "due": None}).json()
    assert undone == {**task, "title": "after", "due": None}


def test_what_is_deleted_is_gone_with_all_that_is_in_it(service, project, new_task, side):
    first, second = new_task("first"), new_task("second")
    assert service.ask("DELETE", f"/api/tasks/{first['id']}").status == 204
    assert service.get(f"/api/tasks/{first['id']}").status == 404
    assert service.ask("DELETE", f"/api/projects/{project['id']}").status == 204
    assert service.get(f"/api/tasks/{second['id']}").status == 404
    assert rows(side, "SELECT title FROM task WHERE project_id = %s", (project["id"],)) == []


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("GET", f"/api/projects/{NOBODY}", None),
        ("DELETE", f"/api/projects/{NOBODY}", None),
        ("POST", f"/api/projects/{NOBODY}/tasks", {"title": "lost"}),
        ("GET", f"/api/tasks/{NOBODY}", None),
        ("PATCH", f"/api/tasks/{NOBODY}", {"done": True}),
        ("DELETE", f"/api/tasks/{NOBODY}", None),
        ("GET", "/api/nothing", None),
    ],
)
def test_what_does_not_exist_is_404(service, method, path, body):
    assert service.ask(method, path, body).status == 404


def test_what_exists_already_is_409_and_changes_nothing(service, project, new_task):
    answer = service.post("/api/projects", {"name": project["name"]})
    assert answer.status == 409
    assert answer.json() == {"detail": "There is a project of this name already."}

    new_task("taken")
    other = new_task("other", tags=["kept"])
    answer = service.post(f"/api/projects/{project['id']}/tasks", {"title": "taken"})
    assert answer.status == 409
    path = f"/api/tasks/{other['id']}"
    answer = service.ask("PATCH", path, {"tags": [], "title": "taken"})
    assert answer.json() == {"detail": "This task is in the project already."}
    assert answer.status == 409
    assert service.get(path).json() == other


@pytest.mark.parametrize(
    "values",
    [
        {"title": " "},
        {"title": None},
        {"title": "x" * 201},
        {"title": "NUL \0"},
        {"title": "half a character \ud800"},
        {"title": "x", "unknown": 1},
        {"title": "x", "due": "2030-02-30"},
        {"title": "x", "tags": "no list"},
        {"title": "x", "details": {"NUL": "\0"}},
        {"title": "x", "details": {"half a character": "\udfff"}},
        {"title": "x", "details": {"no JSON": float("nan")}},
    ],
    ids=str,
)
def test_bad_input_is_422_in_a_sentence_and_stores_nothing(service, project, values):
    answer = service.post(f"/api/projects/{project['id']}/tasks", values)
    assert answer.status == 422
    assert isinstance(answer.json()["detail"], str)
    assert service.get(f"/api/projects/{project['id']}").json()["tasks"] == []


def test_an_update_of_nothing_is_422(service, new_task):
    assert service.ask("PATCH", f"/api/tasks/{new_task('x')['id']}", {}).status == 422


@pytest.fixture
def many_tasks(project, side):
    """So many that no buffer on the way takes the export of all; how many."""
    count = 40_000
    rows(
        side,
        "INSERT INTO task (id, project_id, title, tags, done_at)"
        " SELECT gen_random_uuid(), %s, repeat('x', 190) || n, '{a,b}', '2030-01-02 03:04:05Z'"
        " FROM generate_series(1, %s) AS n",
        (project["id"], count),
    )
    yield count
    rows(side, "DELETE FROM project WHERE id = %s", (project["id"],))


def test_the_export_is_read_from_the_server_while_it_is_sent(service, project, many_tasks, side):
    with service.open("GET", "/api/tasks.csv") as response:
        assert response.status == 200
        assert response.headers["Content-Type"] == "text/csv; charset=utf-8"
        head = response.readline()
        [(query,)] = until(lambda: rows(side, IN_TRANSACTION))
        assert query.startswith("FETCH")
        text = (head + response.read()).decode()
    lines = list(csv.DictReader(text.splitlines()))
    ours = [line for line in lines if line["project"] == project["name"]]
    assert len(ours) == many_tasks
    assert ours[0]["due"] == ""
    assert {line["tags"] for line in ours} == {"a b"}
    assert {line["done_at"] for line in ours} == {"2030-01-02T03:04:05+00:00"}
    assert len({line["title"] for line in ours}) == many_tasks
    until(lambda: rows(side, IN_TRANSACTION) == [])


def test_an_export_that_nobody_reads_to_its_end_leaves_nothing(service, many_tasks, side):
    with service.open("GET", "/api/tasks.csv") as response:
        response.readline()
        until(lambda: rows(side, IN_TRANSACTION))
    until(lambda: rows(side, IN_TRANSACTION) == [])
    assert service.get("/api/projects").status == 200


def test_the_export_of_nothing_is_its_heading(service):
    for project in service.get("/api/projects").json():
        service.ask("DELETE", f"/api/projects/{project['id']}")
    assert service.get("/api/tasks.csv").body == "project,title,due,done_at,tags\r\n"


def test_the_api_describes_itself(service):
    paths = service.get("/openapi.json").json()["paths"]
    assert set(paths["/api/tasks/{task_id}"]) == {"get", "patch", "delete"}
