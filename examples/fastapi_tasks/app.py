"""The endpoints."""

from __future__ import annotations

import asyncio
import contextlib
import csv
import datetime as dt
import io
import uuid
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Annotated, Any

import psycopg2.errors
from fastapi import Depends, FastAPI, HTTPException, Query, Request, Response, status
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, JSONResponse, StreamingResponse
from fastapi.sse import EventSourceResponse, ServerSentEvent
from sqlalchemy import select
from sqlalchemy.exc import DataError, IntegrityError
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine
from sqlalchemy.orm import selectinload

from changes import Changes
from database import Session, StreamingSession, url
from models import Project, Task
from schemas import Line, NewProject, NewTask, ProjectOut, TaskOut, TaskUpdate

PAGE = Path(__file__).parent / "index.html"
CONFLICTS = {
    "project_name_key": "There is a project of this name already.",
    "task_project_id_title_key": "This task is in the project already.",
}


@contextlib.asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    engine = create_async_engine(url(), pool_pre_ping=True)
    app.state.sessions = async_sessionmaker(engine, expire_on_commit=False)
    app.state.changes = Changes()
    following = asyncio.create_task(app.state.changes.follow(engine))
    yield
    following.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await following
    await engine.dispose()


app = FastAPI(title="Tasks on aiopgx", lifespan=lifespan)


@app.exception_handler(RequestValidationError)
async def invalid(request: Request, error: RequestValidationError) -> Response:
    """Answer 422 in a sentence, as all other errors, and without the input, which may be long."""
    reasons = (f"{one['loc'][-1]}: {one['msg']}" for one in error.errors())
    detail = "; ".join(reasons).encode(errors="replace").decode()
    return JSONResponse({"detail": detail}, status.HTTP_422_UNPROCESSABLE_CONTENT)


@app.exception_handler(IntegrityError)
async def conflict(request: Request, error: IntegrityError) -> Response:
    """Answer 409 to what a unique constraint refuses; all else is a fault of ours."""
    if not isinstance(error.orig, psycopg2.errors.UniqueViolation):
        raise error
    return JSONResponse(
        {"detail": CONFLICTS[error.orig.diag.constraint_name]}, status.HTTP_409_CONFLICT
    )


@app.exception_handler(DataError)
async def refused(request: Request, error: DataError) -> Response:
    """Answer 422 to what PostgreSQL can't store, such as a NUL inside of JSON."""
    return JSONResponse(
        {"detail": str(error.orig).splitlines()[0]}, status.HTTP_422_UNPROCESSABLE_CONTENT
    )


async def project(session: Session, project_id: uuid.UUID) -> Project:
    """Return the project of the path, or answer 404."""
    found = await session.get(Project, project_id)
    if found is None:
        raise HTTPException(status.HTTP_404_NOT_FOUND, "There is no such project.")
    return found


async def task(session: Session, task_id: uuid.UUID) -> Task:
    """Return the task of the path, or answer 404."""
    found = await session.get(Task, task_id)
    if found is None:
        raise HTTPException(status.HTTP_404_NOT_FOUND, "There is no such task.")
    return found


ProjectOfPath = Annotated[Project, Depends(project, scope="function")]
TaskOfPath = Annotated[Task, Depends(task, scope="function")]


@app.get("/", include_in_schema=False)
async def page() -> FileResponse:
    return FileResponse(PAGE, headers={"Cache-Control": "no-cache"})


@app.get("/api/projects", response_model=list[ProjectOut])
async def list_projects(session: Session) -> Any:
    """All projects with their tasks, oldest first."""
    query = select(Project).options(selectinload(Project.tasks))
    return (await session.scalars(query.order_by(Project.created_at, Project.name))).all()


@app.post("/api/projects", response_model=ProjectOut, status_code=status.HTTP_201_CREATED)
async def create_project(session: Session, new: NewProject) -> Any:
    project = Project(name=new.name, tasks=[])
    session.add(project)
    await session.flush()
    return project


@app.get("/api/projects/{project_id}", response_model=ProjectOut)
async def get_project(session: Session, project: ProjectOfPath) -> Any:
    await session.refresh(project, ["tasks"])
    return project


@app.delete("/api/projects/{project_id}", status_code=status.HTTP_204_NO_CONTENT)
async def delete_project(session: Session, project: ProjectOfPath) -> None:
    """Delete a project and all tasks in it."""
    await session.delete(project)


@app.post(
    "/api/projects/{project_id}/tasks",
    response_model=TaskOut,
    status_code=status.HTTP_201_CREATED,
)
async def create_task(session: Session, project: ProjectOfPath, new: NewTask) -> Any:
    task = Task(project_id=project.id, **new.model_dump())
    session.add(task)
    await session.flush()
    return task


@app.get("/api/tasks", response_model=list[TaskOut])
async def list_tasks(
    session: Session,
    tag: Annotated[list[Line], Query(default_factory=list)],
    done: bool | None = None,
) -> Any:
    """The tasks that have all these tags, oldest first."""
    query = select(Task).where(Task.tags.contains(tag)).order_by(Task.created_at, Task.title)
    if done is not None:
        query = query.where(Task.done_at.is_not(None) if done else Task.done_at.is_(None))
    return (await session.scalars(query)).all()


@app.get("/api/tasks.csv", response_class=StreamingResponse)
async def export_tasks(session: StreamingSession) -> StreamingResponse:
    """All tasks as CSV, however many: rows are fetched from the server as they are sent."""
    query = (
        select(Project.name, Task.title, Task.due, Task.done_at, Task.tags)
        .join(Task.project)
        .order_by(Project.name, Task.created_at, Task.title)
    )
    result = await session.stream(query.execution_options(yield_per=500))
    return StreamingResponse(
        csv_lines(result.partitions()),
        media_type="text/csv; charset=utf-8",
        headers={"Content-Disposition": 'attachment; filename="tasks.csv"'},
    )


async def csv_lines(parts: AsyncIterator[Sequence[Any]]) -> AsyncIterator[str]:
    buffer = io.StringIO()
    write = csv.writer(buffer).writerow
    write(["project", "title", "due", "done_at", "tags"])
    async for rows in parts:
        for name, title, due, done_at, tags in rows:
            write([name, title, due, done_at and done_at.isoformat(), " ".join(tags)])
        yield buffer.getvalue()
        buffer.seek(0)
        buffer.truncate()
    yield buffer.getvalue()


@app.get("/api/tasks/{task_id}", response_model=TaskOut)
async def get_task(task: TaskOfPath) -> Any:
    return task


@app.patch("/api/tasks/{task_id}", response_model=TaskOut)
async def update_task(session: Session, task: TaskOfPath, update: TaskUpdate) -> Any:
    values = update.model_dump(exclude_unset=True)
    if "done" in values:
        # Done twice is done at the first time.
        done_at = task.done_at or dt.datetime.now(dt.timezone.utc)
        values["done_at"] = done_at if values.pop("done") else None
    for name, value in values.items():
        setattr(task, name, value)
    await session.flush()
    return task


@app.delete("/api/tasks/{task_id}", status_code=status.HTTP_204_NO_CONTENT)
async def delete_task(session: Session, task: TaskOfPath) -> None:
    await session.delete(task)


@app.get("/api/changes", response_class=EventSourceResponse)
async def changes(request: Request) -> AsyncIterator[ServerSentEvent]:
    """Server-sent events: one at once, and one whenever projects or tasks have changed."""
    async for count in request.app.state.changes.stream():
        yield ServerSentEvent(data=count, retry=1000)
