"""Messages in the sources have the form of PostgreSQL's error message style guide."""

import re
from pathlib import Path

import pytest

import dialect

ROOT = Path(__file__).resolve().parents[2]

STRING = r'"((?:[^"\\]|\\[\s\S])*)"'
LITERAL = rf"\s*(?:format!\(\s*)?{STRING}"
CONSTRUCTOR = r"\b(?:invalid|refused|denied|malformed|wrong|warning|notice|report_warning)\("
PRIMARY = re.compile(rf"(?:\bFault::new\(\s*(?:\w+::)*\w+,|{CONSTRUCTOR}|\bFault \{{\s*message:|#\[error\(){LITERAL}")
SENTENCE = re.compile(rf"\.(?:detail|hint)\({LITERAL}")
# health(): the finding, then what to do.
CHECK = re.compile(rf"\bCheck::(?:error|warning)\((?:{LITERAL})?[^;]*?,\s*{STRING}\s*,?\s*\)")
RAISE = re.compile(r"\bRAISE (?:EXCEPTION|WARNING|NOTICE) (?:USING )?(?:MESSAGE = )?(?:format\()?'((?:[^']|'')*)'")
# In a message "there is no X" is "X does not exist".
THERE = re.compile(r"\bthere (?:is|are|was) (?:no|already)\b|\bis there already\b", re.I)
YOU = re.compile(r"\byou(?:r|rs)?\b", re.I)


def code_of(path):
    """The source without its unit tests and comments."""
    text = path.read_text().split("#[cfg(test)]")[0]
    return re.sub(r"^\s*//.*$", "", text, flags=re.M)


def unescape(literal):
    return re.sub(r"\\\n\s*", "", literal).replace('\\"', '"').replace("\\\\", "\\")


def problems_of_primary(message):
    first = message.lstrip()[:1]
    word = re.match(r"[\w().]+", message)
    # A name of a function, a setting or a standard may begin it, as may a value in quotes.
    is_name = word and (re.search(r"[_()\d]", word[0]) or sum(c.isupper() for c in word[0]) > 1)
    if first.isupper() and not is_name:
        yield "starts with a capital"
    if message.endswith("."):
        yield "ends with a full stop"
    if YOU.search(message):
        yield "addresses the reader"
    if dialect.found(message) or THERE.search(message):
        yield "is not plain English"


def problems_of_sentence(message):
    first = message[:1]
    # A value or a name may begin it.
    if first.islower() and not re.match(r"\w+(?:\(|_|=)", message):
        yield "does not start with a capital"
    if not message.endswith((".", ";", ")", "}", "?", "…")):
        yield "does not end as a sentence"
    if YOU.search(message):
        yield "addresses the reader"
    if dialect.found(message) or THERE.search(message):
        yield "is not plain English"


def problems(code):
    found = [(match[1], problems_of_primary) for match in (*PRIMARY.finditer(code), *RAISE.finditer(code))]
    found += [(match[1], problems_of_sentence) for match in SENTENCE.finditer(code)]
    for match in CHECK.finditer(code):
        found += [(match[1] or "", problems_of_primary), (match[2], problems_of_sentence)]
    for literal, check in found:
        message = unescape(literal)
        yield from (f"{problem}: {message}" for problem in check(message))


def sources():
    yield from sorted((ROOT / "sql").rglob("*.sql"))
    for folder in ["crates", "src"]:
        for path in sorted((ROOT / folder).rglob("*.rs")):
            if not {"tests", "examples"} & set(path.relative_to(ROOT).parts) and path.name != "tests.rs":
                yield path


@pytest.mark.parametrize("path", list(sources()), ids=lambda path: str(path.relative_to(ROOT)))
def test_form(path):
    found = list(problems(code_of(path)))
    assert not found, "\n".join(found)


def test_the_sources_have_messages():
    count = sum(len(PRIMARY.findall(code_of(path))) + len(SENTENCE.findall(code_of(path))) for path in sources())
    assert count > 300


@pytest.mark.parametrize(
    "code",
    [
        'Fault::new(Code::Internal, "Something broke")',
        'Fault::new(Code::Internal, "something broke.")',
        'invalid(format!("your {x} broke"))',
        'invalid("\\"x\\" is no status")',
        '#[error("there is no run {0}")]',
        'x.detail("not a sentence.")',
        'x.hint("No end")',
        'x.hint(format!("You \\\n   should."))',
        'denied("You have no right.")',
        'warning(format!("There is no X."))',
        'malformed("Bad.")',
        'Fault { message: "You broke.".into(), ..f }',
        'Check::error("There is no Y.", "Do this.")',
        'Check::warning(format!("{x} is missing"), "no end")',
        'Check::error(summary, "no end")',
        "RAISE EXCEPTION 'There is no table.'",
    ],
)
def test_bad_forms_are_found(code):
    assert list(problems(code))


@pytest.mark.parametrize(
    "code",
    [
        'Fault::new(Code::Internal, "could not read the keyring")',
        'invalid(format!("\\"{x}\\" does not exist"))',
        'Fault::new(Code::Internal, "JSON value is too large")',
        'x.detail("It has {n} bytes.")',
        'x.hint("SELECT skill_system.health();")',
        'x.hint(format!("{command};"))',
    ],
)
def test_good_forms_pass(code):
    assert not list(problems(code))
