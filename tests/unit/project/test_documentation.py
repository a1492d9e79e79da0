"""The documentation builds as a site without a warning, and neither building nor reading it needs a network."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("material")
pytest.importorskip("mkdocstrings")


@pytest.fixture(scope="module")
def site(root, tmp_path_factory):
    """The built site; proxies that lead nowhere make any request fail."""
    folder = tmp_path_factory.mktemp("site")
    nowhere = {f"{name}_proxy": "http://127.0.0.1:9" for name in ("http", "https", "HTTP", "HTTPS")}
    mkdocs = shutil.which("mkdocs", path=str(Path(sys.executable).parent)) or "mkdocs"
    done = subprocess.run(
        [mkdocs, "build", "--strict", "--site-dir", str(folder)],
        cwd=root, capture_output=True, text=True, check=False,
        env={"PATH": "/usr/bin:/bin", "NO_MKDOCS_2_WARNING": "1", "HOME": str(folder), **nowhere},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "WARNING" not in done.stderr
    return folder


def test_every_page_is_built_and_those_of_own_scans_are_in_the_navigation(root, site):
    listed = set(re.findall(r": (\w+\.md)$", (root / "mkdocs.yml").read_text(), flags=re.M))
    assert {"index.md", "tutorial.md", "own_scans.md", "faq.md", "api.md"} <= listed
    for page in (root / "docs").glob("*.md"):
        assert (site / page.name).with_suffix(".html").stat().st_size > 5000


def test_pages_load_nothing_from_elsewhere(site):
    pages = list(site.rglob("*.html"))
    assert len(pages) >= 8
    for page in pages:
        loaded = re.findall(r'<(?:script|link|img|iframe)[^>]+(?:src|href)="([^"]+)"', page.read_text())
        assert not [address for address in loaded if re.match(r"(https?:)?//", address)], page.name
    for style in site.rglob("*.css"):
        assert not re.search(r"@import|url\(['\"]?(https?:)?//", style.read_text()), style.name


def test_the_reference_shows_signatures_and_docstrings(site):
    text = re.sub(r"<[^>]+>", "", (site / "api.html").read_text())
    for part in ("Learns what healthy scans look like", "false_positive_rate", "One online EM step on embeddings"):
        assert part in text


LONGEST_SENTENCE = 40  # words


def sentences(text):
    """The sentences of a page, without code, headings, tables and the addresses of links; a code span is one word."""
    text = re.sub(r"(?s)^```.*?^```|<!--.*?-->", "\n\n", text, flags=re.M)
    text = re.sub(r"^ *(\||#|:::).*$", "\n\n", text, flags=re.M)
    for block in re.split(r"\n\s*\n|\n(?=\s*(?:-|\d+\.) )", text):
        prose = re.sub(r"\]\([^)]*\)", "]", re.sub(r"`[^`]*`", "code", " ".join(block.split())))
        yield from re.split(r"(?<=[.!?])\s", prose)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("One. Two\nlines. `a. b` c.", ["One.", "Two lines.", "code c."]),
        ("# Heading\nText [of a link](page.md#a. b).", ["Text [of a link]."]),
        ("- One\n- Two", ["- One", "- Two"]),
        ("Before\n```\ncode. here\n```\nAfter\n\n| a | b. c |\n|---|---|", ["Before", "After"]),
    ],
)
def test_what_is_a_sentence(text, expected):
    assert [sentence for sentence in sentences(text) if sentence] == expected


def test_no_sentence_is_long(root):
    pages = [*(root / "docs").glob("*.md"), root / "README.md", root / "CONTRIBUTING.md", *root.glob("*/README.md")]
    assert len(pages) > 14
    long = {
        f"{page.name}: {sentence}"
        for page in pages
        for sentence in sentences(page.read_text())
        if len(sentence.split()) > LONGEST_SENTENCE
    }
    assert not long, "\n".join(sorted(long))
