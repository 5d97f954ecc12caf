"""The logger of the package."""

import logging

# Not named after this package: programs configure "aiopg", and a dictConfig that lists that name
# only would silence any other (disable_existing_loggers).
logger: logging.Logger = logging.getLogger("aiopg")
