"""The snippets of a guide in `docs/`, which tests run."""

import pathlib
import re

DOCS = pathlib.Path(__file__).resolve().parents[1] / "docs"
_SNIPPET = re.compile(r"<!-- test: (\w+) -->\n```python\n(.*?)```", re.S)


def text(name):
    return (DOCS / name).read_text("utf-8")


def snippets(name):
    """Code by the name that stands above it."""
    return dict(_SNIPPET.findall(text(name)))
