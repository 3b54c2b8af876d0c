"""The files of the serving page, which need no token: they are the same on every machine.

The page asks everything else with the user's token, by the routes that other clients use. Its policy lets it load its
own files and ask its own server, and nothing else; see the folder `page`.
"""

from collections.abc import Mapping
from functools import cache
from pathlib import Path

from aiohttp import web

INDEX = "index.html"
_FOLDER = Path(__file__).parents[1] / "page"
_CONTENT_TYPES = {".css": "text/css", ".html": "text/html", ".js": "text/javascript", ".svg": "image/svg+xml"}
_SOURCES = {
    "default-src": "'none'",
    "script-src": "'self'",
    "style-src": "'self'",
    "connect-src": "'self'",
    "img-src": "'self'",
    "base-uri": "'none'",
    "form-action": "'none'",
    "frame-ancestors": "'none'",
}
_HEADERS = {
    "Content-Security-Policy": "; ".join(f"{directive} {source}" for directive, source in _SOURCES.items()),
    "Cache-Control": "no-cache",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}


def page_response(name: str) -> web.Response | None:
    """Return the response with one file of the page, or None if the page has no such file."""
    body = _files().get(name)
    if body is None:
        return None
    content_type = _CONTENT_TYPES[Path(name).suffix]
    return web.Response(body=body, headers=_HEADERS, content_type=content_type, charset="utf-8")


@cache
def _files() -> Mapping[str, bytes]:
    return {path.name: path.read_bytes() for path in _FOLDER.iterdir()}
