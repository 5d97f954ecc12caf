"""The handlers: pages for people, JSON for programs."""

from __future__ import annotations

import datetime as dt
import functools
import json
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from aiohttp import web
from aiopgx.sa import Engine, create_engine

import db
import pages

ENGINE = web.AppKey("ENGINE", Engine)
ID = r"{poll_id:\d{1,9}}"  # what fits into an integer of PostgreSQL

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
routes = web.RouteTableDef()
to_json = functools.partial(json.dumps, default=dt.datetime.isoformat)


def make_app(dsn: str) -> web.Application:
    """The application, on the database at `dsn`."""

    async def engine(app: web.Application) -> AsyncIterator[None]:
        async with create_engine(dsn, minsize=1, maxsize=10) as app[ENGINE]:
            async with app[ENGINE].acquire() as conn:
                await db.create_tables(conn)
            yield

    app = web.Application(middlewares=[errors])
    app.cleanup_ctx.append(engine)
    app.add_routes(routes)
    return app


@web.middleware
async def errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Answer what is wrong in the form that was asked for."""
    try:
        return await handler(request)
    except db.NotFound as error:
        status, reason = 404, str(error)
    except db.Conflict as error:
        status, reason = 409, str(error)
    except web.HTTPClientError as error:
        status, reason = error.status, error.reason
    if request.path.startswith("/api/"):
        return web.json_response({"error": reason}, status=status)
    return page(pages.error(reason), status=status)


def page(html: str, status: int = 200) -> web.Response:
    return web.Response(text=html, content_type="text/html", status=status)


# --- what comes in


def bad(reason: str) -> web.HTTPBadRequest:
    return web.HTTPBadRequest(reason=reason)


def poll_id(request: web.Request) -> int:
    return int(request.match_info["poll_id"])


def line(value: Any, name: str) -> str:
    """The value, if it is a line of text, without spaces around it. Raises HTTPBadRequest."""
    text = value.strip() if isinstance(value, str) else ""
    if not (0 < len(text) <= 200 and text.isprintable()):
        raise bad(f"{name} must be a line of text, up to 200 characters")
    return text


def lines(values: Any, name: str, least: int) -> list[str]:
    """The values, if they are a list of lines, each once. Raises HTTPBadRequest."""
    if not isinstance(values, list):
        raise bad(f"{name} must be a list")
    found = list(dict.fromkeys(line(value, name) for value in values))
    if len(found) < least:
        raise bad(f"{name} must be {least} different ones at least")
    return found


async def json_object(request: web.Request) -> dict[str, Any]:
    try:
        values = await request.json()
    except ValueError:
        raise bad("the body must be JSON") from None
    if not isinstance(values, dict):
        raise bad("the body must be an object")
    return values


# --- pages


@routes.get("/")
async def index(request: web.Request) -> web.Response:
    return page(pages.index(await db.list_polls(request.app[ENGINE])))


@routes.post("/polls")
async def ask(request: web.Request) -> web.Response:
    form = await request.post()
    question = line(form.get("question"), "question")
    labels = lines(str(form.get("choices", "")).splitlines(), "choices", 2)
    async with request.app[ENGINE].acquire() as conn:
        number = await db.create_poll(conn, question, labels, [])
    raise web.HTTPSeeOther(f"/polls/{number}")


@routes.get(f"/polls/{ID}")
async def show(request: web.Request) -> web.Response:
    return page(pages.poll(await db.get_poll(request.app[ENGINE], poll_id(request))))


@routes.post(f"/polls/{ID}/votes")
async def vote(request: web.Request) -> web.Response:
    form = await request.post()
    number = str(form.get("choice"))
    voter = line(form.get("voter"), "voter")
    if not re.fullmatch("[0-9]{1,9}", number):
        raise bad("choice must be the number of one")
    async with request.app[ENGINE].acquire() as conn:
        await db.vote(conn, poll_id(request), int(number), voter)
    raise web.HTTPSeeOther(f"/polls/{poll_id(request)}")


# --- JSON


@routes.get("/api/polls")
async def api_list(request: web.Request) -> web.Response:
    return web.json_response(await db.list_polls(request.app[ENGINE]), dumps=to_json)


@routes.post("/api/polls")
async def api_create(request: web.Request) -> web.Response:
    """Ask: {"question": ..., "choices": [..., ...], "tags": [...]}."""
    values = await json_object(request)
    question = line(values.get("question"), "question")
    labels = lines(values.get("choices"), "choices", 2)
    tags = lines(values.get("tags", []), "tags", 0)
    async with request.app[ENGINE].acquire() as conn:
        number = await db.create_poll(conn, question, labels, tags)
        new = await db.get_poll(conn, number)
    headers = {"Location": f"/api/polls/{number}"}
    return web.json_response(new, status=201, headers=headers, dumps=to_json)


@routes.get(f"/api/polls/{ID}")
async def api_get(request: web.Request) -> web.Response:
    found = await db.get_poll(request.app[ENGINE], poll_id(request))
    return web.json_response(found, dumps=to_json)


@routes.post(f"/api/polls/{ID}/votes")
async def api_vote(request: web.Request) -> web.Response:
    """Vote: {"choice": <its number>, "voter": ...}."""
    values = await json_object(request)
    number = values.get("choice")
    voter = line(values.get("voter"), "voter")
    if type(number) is not int or not 0 < number < 10**9:
        raise bad("choice must be the number of one")
    async with request.app[ENGINE].acquire() as conn:
        await db.vote(conn, poll_id(request), number, voter)
        now = await db.get_poll(conn, poll_id(request))
    return web.json_response(now, status=201, dumps=to_json)


@routes.delete(f"/api/polls/{ID}")
async def api_delete(request: web.Request) -> web.Response:
    await db.delete_poll(request.app[ENGINE], poll_id(request))
    return web.Response(status=204)
