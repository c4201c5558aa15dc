"""`make docs`: each name of the reference is there, links lead somewhere, no network is needed."""

import re
import subprocess
from html import unescape
from pathlib import Path
from urllib.parse import unquote

import pytest
from studies import ROOT

MKDOCS = ROOT / ".venv-docs" / "bin" / "mkdocs"
LOADED = re.compile(r"<(?:script|img|link|iframe)\b[^>]*?\b(?:src|href)=\"([^\"]+)\"")
LINKS = re.compile(r"<a\b[^>]*?\bhref=\"([^\"]+)\"")


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_pages_are_built_and_whole(tmp_path):
    # Nothing where it is as the Makefile says; one from before a change of that is brought up.
    subprocess.run(["make", ".venv-docs/.installed"], cwd=ROOT, check=True, timeout=800)
    built = subprocess.run(
        [MKDOCS, "build", "--strict", "--site-dir", tmp_path / "site"], cwd=ROOT,
        capture_output=True, text=True,
    )  # fmt: skip
    assert built.returncode == 0, built.stderr
    pages = [p for p in (tmp_path / "site").rglob("*.html") if p.name != "404.html"]
    assert pages
    for page in pages:
        text = page.read_text(encoding="utf-8")
        local = [url for url in LOADED.findall(text) if not url.startswith("data:")]
        assert not [url for url in local if not (page.parent / url.partition("?")[0]).exists()]
        assert not [url for url in LOADED.findall(text) if "://" in url or url.startswith("//")]
        for url in LINKS.findall(text):
            place, _, anchor = unquote(unescape(url)).partition("#")
            if "://" in place or place.startswith("mailto:"):
                continue
            target = (page.parent / place).resolve() if place else page
            assert target.exists(), (page.name, url)
            if anchor and target.suffix == ".html":
                assert f'id="{anchor}"' in Path(target).read_text(encoding="utf-8"), url
    assert {p.parent.name for p in pages} >= {"site", "results", "reference"}
    reference = (tmp_path / "site" / "reference" / "index.html").read_text(encoding="utf-8")
    assert "open_study" in reference
    assert "factor.&lt;name&gt;" in reference  # not taken for a tag
    assert "Run <code>study</code> as its script would" in reference
    architecture = (tmp_path / "site" / "architecture.html").read_text(encoding="utf-8")
    assert "language-mermaid" not in architecture  # drawn, and the words are in the drawing
    drawing = architecture.partition('<figure class="diagram">')[2].partition("</svg>")[0]
    assert "<svg" in drawing
    assert "driver: the script" in drawing
    assert "commit: temporary file" in drawing
