"""What `importlib.metadata` is told of aiopg where aiopgx stands in for it."""

from importlib.metadata import Distribution
from pathlib import Path

from ._version import __version__

# The release whose API this is, whatever else is installed: so that pins of it hold, too.
VERSION = "1.4.0"

METADATA = f"""\
Metadata-Version: 2.1
Name: aiopg
Version: {VERSION}
Summary: aiopgx {__version__} in place of aiopg: aiopgx.install_as_aiopg()
Requires-Python: >=3.10
Requires-Dist: aiopgx =={__version__}
Provides-Extra: sa
Requires-Dist: aiopgx[sa] =={__version__} ; extra == 'sa'
"""

TEXTS = {"METADATA": METADATA, "top_level.txt": "aiopg\n", "INSTALLER": "aiopgx\n"}


class AiopgDistribution(Distribution):
    """A distribution without files, named aiopg."""

    def read_text(self, filename: str) -> str | None:
        return TEXTS.get(str(filename))

    def locate_file(self, path: object) -> Path:
        return Path(__file__).parent.parent / str(path)
