"""How Sphinx builds the pages: `make docs`."""

project = "aiopgx"
extensions = ["myst_parser"]
myst_heading_anchors = 3
html_theme = "furo"
html_title = project
html_use_index = False  # the pages are texts: there is nothing to list
