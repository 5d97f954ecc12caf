"""How Sphinx builds the pages: `make docs`."""

import re

project = "aiopgx"
author = project_copyright = "The aiopgx authors"
extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx_copybutton",
]
exclude_patterns = ["code"]
html_theme = "furo"
html_title = project
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_theme_options = {
    "source_repository": "https://github.com/aiopgx/aiopgx",
    "source_branch": "main",
    "source_directory": "docs/",
}
copybutton_exclude = ".linenos, .gp, .go"

myst_heading_anchors = 3

autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
autosummary_generate = False
default_role = "py:obj"  # of a docstring's `names`
maximum_signature_line_length = 70
python_use_unqualified_type_names = True

PAGE = re.compile(r"docs/([\w-]+)\.md")

# "dsn, kwargs: as for ..." at the beginning of a line, which may go on below, further in.
ENTRY = re.compile(r"((?:\w+, )*[a-z_]\w*): (.+)")


def show_arguments(app, what, name, obj, options, lines):
    """Turn the arguments that a docstring explains, in plain text, into a list of definitions."""
    plain, lines[:] = list(lines), []
    among = True  # those may begin here
    for line in plain:
        entry = ENTRY.fullmatch(line) if among else None
        if entry is not None:
            names = ", ".join(f"``{each}``" for each in entry[1].split(", "))
            lines += [names, f"    {entry[2]}"]
        else:
            lines.append(line)
        lines[-1] = PAGE.sub(r":doc:`/\1`", lines[-1])
        among = entry is not None or not line or (among and line.startswith("    "))


def show_defaults(app, what, name, obj, options, signature, returns):
    """Show the values of constants that are defaults, and no classes that nobody makes."""
    if signature is None:
        return None
    names = getattr(obj, "__globals__", {})
    signature = re.sub(r"(?<== )[A-Z_]{2,}\b", lambda match: repr(names[match[0]]), signature)
    return signature, None if "ContextManager" in (returns or "") else returns


def setup(app):
    app.connect("autodoc-process-docstring", show_arguments)
    app.connect("autodoc-process-signature", show_defaults)
