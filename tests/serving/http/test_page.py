"""The files of the serving page, as a client gets them."""

import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import requests

import spark_llm.serving
from tests.support.local_client import Client

FOLDER = Path(spark_llm.serving.__file__).parent / "page"
FILES = sorted(path.name for path in FOLDER.iterdir())
TYPES = {".css": "text/css", ".html": "text/html", ".js": "text/javascript", ".svg": "image/svg+xml"}


@pytest.mark.parametrize("name", FILES)
def test_a_file_needs_no_token_and_has_the_policy(name: str, shared: Client) -> None:
    """Each file of the folder is served as it is, with its type and the headers that protect the page."""
    path = "/" if name == "index.html" else f"/page/{name}"
    response = requests.get(shared.endpoints.url + path, timeout=10)

    assert (200, (FOLDER / name).read_bytes()) == (response.status_code, response.content)
    assert f"{TYPES[Path(name).suffix]}; charset=utf-8" == response.headers["Content-Type"]
    policy = response.headers["Content-Security-Policy"]
    sources = dict(part.split(" ") for part in policy.split("; "))
    own = {"script-src", "style-src", "connect-src", "img-src"}
    none = {"default-src", "base-uri", "form-action", "frame-ancestors"}
    assert {**dict.fromkeys(own, "'self'"), **dict.fromkeys(none, "'none'")} == sources
    assert ("nosniff", "no-referrer", "DENY") == tuple(
        response.headers[each] for each in ("X-Content-Type-Options", "Referrer-Policy", "X-Frame-Options")
    )


@pytest.mark.parametrize(
    "path", ["/page/", "/page/nobody.js", "/page/..%2Fcatalog.py", "/page/%2e%2e/catalog.py", "/page/a/b"]
)
def test_no_other_file_is_served(path: str, shared: Client) -> None:
    """A path outside the folder is the 404 of any unknown route."""
    assert 404 == requests.get(shared.endpoints.url + path, timeout=10).status_code


@pytest.mark.parametrize("name", FILES)
def test_a_file_names_no_other_host_and_has_nothing_inline(name: str) -> None:
    """No address of another host, no inline script, style or handler."""
    text = (FOLDER / name).read_text(encoding="utf-8")
    addresses = set(re.findall(r"https?://[\w./-]+", text))

    assert addresses <= {"http://www.w3.org/2000/svg"}
    assert not re.search(r"<style|\sstyle=|\son\w+=|javascript:|<script(?! type=\"module\" src=\"/page/)", text)


def test_every_module_that_is_imported_is_there() -> None:
    """The page loads all of its modules and styles, and no other."""
    texts = {name: (FOLDER / name).read_text(encoding="utf-8") for name in FILES}
    loaded = {name for text in texts.values() for name in re.findall(r"[\"'](?:\./|/page/)([\w.]+)[\"']", text)}

    assert set(FILES) - {"index.html"} == loaded


@pytest.mark.slow
def test_a_wheel_has_the_page(tmp_path: Path) -> None:
    """Each file of the page is in the wheel that users install."""
    root = FOLDER.parents[2]
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(tmp_path), str(root)]
    subprocess.run(command, check=True, timeout=300)
    [wheel] = tmp_path.glob("*.whl")

    packed = set(zipfile.ZipFile(wheel).namelist())
    assert set() == {f"spark_llm/serving/page/{name}" for name in FILES} - packed
