from typing import Any

LIMIT: float

def cancel_and_close(raw: Any) -> None: ...
