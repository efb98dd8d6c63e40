"""The site: Sphinx reads the same Markdown that a code host shows. `make docs` builds it.

The source directory is the whole repository, so that pages may link to measurements and the client.
"""

import os

project = "loss-scoring"
copyright = "the authors of loss-scoring, Apache-2.0"  # noqa: A001 - as Sphinx calls it
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx_copybutton"]
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
html_static_path = ["static"]
html_css_files = ["site.css"]
html_extra_path = ["root"]  # redirects / to the first page
html_copy_source = html_show_sphinx = html_use_index = False
highlight_language = "text"
myst_heading_anchors = 3  # links name headings as code hosts do: page.md#a-heading
copybutton_selector = "div:not(.highlight-output) > div.highlight > pre"  # what can be run or sent

autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented_params"
napoleon_use_ivar = True  # an attribute is not described twice
nitpick_ignore_regex = [("py:.*", ".*")]  # types of libraries, whose pages are not at hand

# Where a page can be edited: an address with {filename}, as of whoever publishes the site.
if edit_link := os.environ.get("DOCS_EDIT_LINK"):
    html_theme_options = {"source_edit_link": edit_link}
