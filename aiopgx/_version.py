"""The version, where the build can read it without importing compiled modules.

It starts above aiopg 1.4, whose API this is, and stays below 2: programs compare `__version__`
with aiopg's own numbers ("0.14.0", ">=0.16", ">=0.13,<2").
"""

__version__ = "1.6.0"
