"""The page at ``/``, on which a table can be tried, and which paths browsers get without a key.

It is a client like any other: plain HTML, CSS and JavaScript modules, served as they are, that send
what ``POST /score`` takes.
"""

from pathlib import Path

_FOLDER = Path(__file__).parent
_NAMES = (
    *("page.css", "icon.svg", "example.csv"),
    *(
        f"{name}.js"
        for name in (
            "arrow",
            "chart",
            "dom",
            "leaderboard",
            "page",
            "programs",
            "results",
            "service",
            "table",
        )
    ),
)
FILES = {"/": _FOLDER / "index.html", **{f"/page/{name}": _FOLDER / name for name in _NAMES}}
"""What is served where."""
TYPES = {
    ".css": "text/css",
    ".csv": "text/csv",
    ".html": "text/html",
    ".js": "text/javascript",
    ".svg": "image/svg+xml",
}
_SWAGGER = ("favicon.png", "swagger-ui-bundle.js", "swagger-ui.css")
PAGES = frozenset(
    {*FILES, "/docs", "/openapi.json", *(f"/static-offline-docs/{name}" for name in _SWAGGER)}
)
"""Paths that browsers open before they can send a key; nothing there is secret."""
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "img-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'",
    "Cache-Control": "no-cache",  # modules of two versions would not fit together
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
