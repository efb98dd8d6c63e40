"""The site: Sphinx reads the same Markdown that a code host shows. `make docs` builds it.

The source directory is the whole repository, so that pages may link to measurements and the client.
"""

project = "loss-scoring"
extensions = ["myst_parser"]
root_doc = "docs/index"
include_patterns = [
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "docs/*.md",
    "docs/decisions/*.md",
    "bench/*.md",
    "deploy/README.md",
    "lossclient/README.md",
]
exclude_patterns = [".*", "docs/_build"]
html_theme = "furo"
html_title = project
html_extra_path = ["root"]  # redirects / to the first page
html_copy_source = html_show_sphinx = html_use_index = False
highlight_language = "text"
myst_heading_anchors = 3  # links name headings as code hosts do: page.md#a-heading
