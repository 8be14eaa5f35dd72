"""Pages, comments and texts that users read have the glossary's words. test_messages.py looks at the form of messages."""

import ast
import io
import re
import subprocess
import tokenize

import pytest
from conftest import ROOT

import dialect

COMMENT = {"rs": r"//[^\n]*|/\*.*?\*/", "sql": r"--[^\n]*|/\*.*?\*/", "sh": r"(?:^|(?<=\s))#[^\n]*"}
# Those of the reference come from sql/.
PAGES = [*ROOT.glob("*.md"), *(page for page in (ROOT / "docs").rglob("*.md") if page.parent.name != "reference")]


def language(path, text):
    first = text.partition("\n")[0]
    if first.startswith("#!"):
        return "py" if "python" in first else "sh" if first.endswith("sh") else None
    return path.suffix[1:] if path.suffix in (".rs", ".sql", ".py", ".sh") else None


def comments(kind, text):
    """Number of the first line and text of each comment; of Python also the docstrings."""
    if kind == "py":
        for token in tokenize.generate_tokens(io.StringIO(text).readline):
            if token.type == tokenize.COMMENT:
                yield token.start[0], token.string
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node):
                yield node.body[0].lineno, node.body[0].value.value
    else:
        for match in re.finditer(COMMENT[kind], text, re.M | re.S):
            yield text.count("\n", 0, match.start()) + 1, match[0]


def sources():
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    for name in listed.stdout.splitlines():
        path = ROOT / name
        # The corpus is other people's; what git lists may be gone.
        if path.is_file() and not name.startswith("tests/corpus/"):
            text = path.read_bytes().decode(errors="replace")
            if kind := language(path, text):
                yield name, kind, text


def test_comments():
    looked_at, wrong = set(), []
    for name, kind, text in sources():
        looked_at.add(kind)
        wrong += [f"{name}:{place}" for line, comment in comments(kind, text) for place in dialect.found(comment, line)]
    assert looked_at == {"rs", "sql", "py", "sh"}
    assert wrong == []


def texts(name, kind, text):
    """Number of the first line and text of what users read: literals of Rust, comments of the catalogue, scripts."""
    if kind == "rs" and not {"tests", "examples", "benches"} & set(name.split("/")) and not name.endswith("tests.rs"):
        text = re.sub(COMMENT["rs"], lambda comment: "\n" * comment[0].count("\n"), text.split("#[cfg(test)]")[0])
        for match in re.finditer(r'"(?:[^"\\]|\\[\s\S])*"', text):
            yield text.count("\n", 0, match.start()) + 1, match[0]
    elif kind == "sh" or kind == "sql" and name.startswith("sql/"):
        # Adjacent literals are one.
        yield 1, re.sub(r"(?<=\w)? ?'\n'", " \n", text)


def test_texts():
    looked_at, wrong = set(), []
    for name, kind, text in sources():
        for line, found in texts(name, kind, text):
            looked_at.add(name)
            wrong += [f"{name}:{place}" for place in dialect.found(found, line)]
    assert {"src/settings.rs", "crates/verify/src/main.rs", "sql/policy/policy.sql", "demo/demo.sh"} <= looked_at
    assert wrong == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_pages(page):
    # Messages of the product that are quoted are looked at where they are made.
    text = re.sub("CHAOS_SEED|“[^”]*”", "", page.read_text())
    assert dialect.found(text) == []
    assert re.findall(r"\bseeds?\b", text, re.I) == []


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        ("rs", "let a = 1; // made anew\n"),
        ("rs", "/// Whoever asks.\n"),
        ("sql", "-- It is no table.\n"),
        ("py", "x = 1  # belongs into the backup\n"),
        ("py", 'def f():\n    """A cluster of its own."""\n'),
        ("sh", "true # beside it\n"),
        ("sh", "# AEGIS (seed 001)\n"),
    ],
)
def test_the_dialect_is_found(kind, text):
    assert [place for line, comment in comments(kind, text) for place in dialect.found(comment, line)]


def test_plain_english_passes():
    assert dialect.found("No such table exists; it is no longer used. A random seed, 7.") == []
