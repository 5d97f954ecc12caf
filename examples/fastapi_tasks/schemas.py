"""What goes in and out as JSON."""

from __future__ import annotations

import datetime as dt
import uuid
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, StringConstraints, model_validator

# One line of text; PostgreSQL has no NUL in text at all.
Line = Annotated[
    str,
    StringConstraints(
        strip_whitespace=True, min_length=1, max_length=200, pattern=r"^[^\x00-\x1f]*$"
    ),
]


class Input(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Output(BaseModel):
    model_config = ConfigDict(from_attributes=True)


class NewProject(Input):
    name: Line


class NewTask(Input):
    title: Line
    due: dt.date | None = None
    tags: list[Line] = []
    details: dict[str, Any] = {}


class TaskUpdate(Input):
    """What is to change; what is left out stays, so the defaults here are never used."""

    title: Line = ""
    due: dt.date | None = None
    tags: list[Line] = []
    details: dict[str, Any] = {}
    done: bool = False

    @model_validator(mode="after")
    def _not_empty(self) -> TaskUpdate:
        if not self.model_fields_set:
            raise ValueError("nothing to change was given")
        return self


class TaskOut(Output):
    id: uuid.UUID
    project_id: uuid.UUID
    title: str
    due: dt.date | None
    tags: list[str]
    details: dict[str, Any]
    created_at: dt.datetime
    done_at: dt.datetime | None


class ProjectOut(Output):
    id: uuid.UUID
    name: str
    created_at: dt.datetime
    tasks: list[TaskOut]
