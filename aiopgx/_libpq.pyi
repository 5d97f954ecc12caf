libpq_version: int
direct_rows: bool
async_cancel: bool
why_not: str | None

def limit(version: int) -> None: ...
