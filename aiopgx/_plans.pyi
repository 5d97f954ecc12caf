from ._eligibility import Text

DEFAULT_THRESHOLD: int
DEFAULT_MAXIMUM: int

class Plans:
    prepare_threshold: int | None
    maximum: int | None
    pooler: int
    given: bool
    all_digits: bool
    def __init__(self, threshold: int | None, maximum: int | None, given: bool) -> None: ...
    @property
    def epoch(self) -> int: ...
    @property
    def names_in_use(self) -> list[bytes]: ...
    def forget(self) -> None: ...

def text_of(operation: str, has_parameters: bool) -> Text: ...
