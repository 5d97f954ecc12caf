from typing import Any

class Text:
    eligible: bool
    reason: str | None
    sql: bytes | None
    names: tuple[str, ...] | None
    count: int
    single: bool
    kind: str
    changes_session: bool
    @property
    def binds(self) -> tuple[str, ...]: ...
    def admits(self, parameters: Any) -> int: ...
    def refusal(self, parameters: Any) -> str | None: ...

def read_text(operation: Any, has_parameters: bool) -> Text: ...
