"""Messages in the sources have the form of PostgreSQL's error message style guide.

A constructor of messages is what has a parameter with one of these names: functions and closures are found by their
declarations, so that a new one is looked at without being listed here."""

import re
from functools import cache
from pathlib import Path

import pytest

import dialect

ROOT = Path(__file__).resolve().parents[2]

PHRASES = {"message", "reason", "why", "problem", "detail", "note", "what", "how"}
SENTENCES = {"hint"}
STRING = re.compile(r'"((?:[^"\\]|\\[\s\S])*)"')
LITERAL = re.compile(rf"\s*(?:Some\(\s*)?(?:format!\(\s*|concatcp!\(\s*)?{STRING.pattern}")
TEXT_TYPE = re.compile(r"\b(?:str|String|ToString)\b")
FUNCTION = re.compile(r"(\bpub(?:\(\w+\))? )?(?:const )?\bfn (\w+)(?:<[^({]*?>)?\(")
CLOSURE = re.compile(r"\blet (?:mut )?(\w+) =\s*(?:move )?\|([^|]*)\|")
# The methods of Fault; the function of the server's reports.
CONSTRUCTORS = {
    r"\bFault::new": {1: "phrase"},
    r"\.detail": {0: "sentence"},
    r"\.hint": {0: "sentence"},
    r"\bsend": {1: "phrase", 2: "sentence", 3: "sentence"},
    r"\bwarning_with": {0: "phrase", 1: "sentence", 2: "sentence"},
    r"\bCheck::ok": {0: "phrase"},
    r"\bCheck::warning": {0: "phrase", 1: "sentence"},
    r"\bCheck::error": {0: "phrase", 1: "sentence"},
}
LISTED = {"detail", "hint", "send", "warning_with"}
ENUM = re.compile(rf"#\[error\(\s*{STRING.pattern}")
FIELD = re.compile(rf"\b(message|detail|hint|reason):(?={LITERAL.pattern})")
LET = re.compile(r"\blet (message|detail|hint|reason|why)(?:: \S+)? = (?=\"|format!|if |match )")
WORDS_OF = re.compile(r"\bfn (hint|explain\w*|words|message)\((?:&?self|\w+: \S+)\) -> &'static str \{")
HINT_CONSTANT = re.compile(rf"\bconst (?:\w*HINT|REPAIR)\w*: &str =\s*{STRING.pattern}")
RAISE = re.compile(r"\bRAISE (?:EXCEPTION|WARNING|NOTICE) (?:USING )?(?:MESSAGE = )?(?:format\()?'((?:[^']|'')*)'")
USING = re.compile(r"\b(DETAIL|HINT) = (?:pg_catalog\.format\()?'((?:[^']|'')*)'")
# "X does not exist", "already exists".
THERE = re.compile(r"\bthere (?:is|are|was|were)\b|\bis there already\b", re.I)
YOU = re.compile(r"\byou(?:r|rs)?\b", re.I)
# The messages of skills-runtime-sdk, as its contract gives them, in the files that have them.
CONTRACT = {f"crates/core/src/skills/{name}.rs" for name in ("bundle", "contract", "preflight", "preflight/config")}
CONTRACT |= {"src/skills/adapters/runtime_sdk.rs"}
CONTRACT_FORM = re.compile(r"(?:[A-Z]|skills\.versioning ).*\.")


@cache
def code_of(path):
    """The source without its unit tests and comments."""
    text = path.read_text().split("#[cfg(test)]")[0]
    return re.sub(r"^\s*(?://|--).*$", "", text, flags=re.M)


def unescape(literal):
    return re.sub(r"\\\n\s*", "", literal).replace('\\"', '"').replace("\\\\", "\\")


def arguments(text, start):
    """What stands between commas from here to the closing bracket, and where that is."""
    found, depth, at, begin = [], 1, start, start
    while at < len(text):
        letter = text[at]
        if match := (STRING.match(text, at) if letter == '"' else re.compile(r"'(?:\\.[^']*|[^'\\])'").match(text, at)):
            at = match.end()
            continue
        depth += (letter in "([{") - (letter in ")]}")
        if depth == 0:
            break
        if letter == "," and depth == 1:
            found.append(text[begin:at])
            begin = at + 1
        at += 1
    return [*found, text[begin:at]], at


def block(text, start):
    """From here to the end of the block that begins here, or of the statement."""
    return ",".join(arguments(text, start)[0])


def roles(parameters, body):
    """Position to form: a sentence is what the body gives to detail() or hint()."""
    for position, parameter in enumerate(parameters):
        name, _, kind = (part.strip() for part in parameter.partition(":"))
        name = name.removeprefix("mut ")
        if kind and not TEXT_TYPE.search(kind):
            continue
        if name in SENTENCES or name in PHRASES and re.search(rf"\.(?:detail|hint)\({name}\b", body):
            yield position, "sentence"
        # "what" and the like are often part of a message that the body writes.
        elif name in {"message", "detail", "problem"} or (
            name in PHRASES and re.search(rf"Fault::new\([^;]*, {name}\b|message: {name}\b", body)
        ):
            yield position, "phrase"


@cache
def constructors(code):
    """Pattern of the name, forms of the arguments, and whether other files may call it, for what this source declares."""
    declared = []
    for match in FUNCTION.finditer(code):
        parameters, end = arguments(code, match.end())
        parameters = [parameter.strip() for parameter in parameters if parameter.strip()]
        is_method = bool(parameters) and bool(re.fullmatch(r"(?:&(?:'\w+ )?)?(?:mut )?self", parameters[0]))
        opening = code.find("{", end)
        body = block(code, opening + 1) if opening >= 0 else ""
        if match[2] not in LISTED and (found := dict(roles(parameters[is_method:], body))):
            owner = re.findall(r"^impl(?:<[^>]*>)? (?:.* for )?(\w+)", code[: match.start()], re.M)
            before = r"\." if is_method else rf"\b{owner[-1]}::" if match[2] == "new" else r"(?<![.\w])"
            declared.append((before + match[2], found, bool(match[1])))
    for match in CLOSURE.finditer(code):
        if found := dict(roles(match[2].split(","), block(code, match.end()).split(";")[0])):
            declared.append((r"(?<![.\w])" + match[1], found, False))
    return declared


def literals(expression):
    """The texts that an expression may be: a literal, or those of its branches."""
    if match := LITERAL.match(expression):
        yield match[1]
    elif re.match(r"\s*(?:Some\()?\s*(?:if|match)\b", expression):
        yield from (text for text in STRING.findall(expression) if " " in text.strip(", "))


def problems_of_phrase(message):
    first = message.lstrip()[:1]
    word = re.match(r"[\w().+]+", message)
    # A name of a function, a setting or a standard may begin it, as may a value in quotes.
    is_name = word and (re.search(r"[_()\d+]", word[0]) or sum(c.isupper() for c in word[0]) > 1)
    if first.isupper() and not is_name:
        yield "starts with a capital"
    if re.search(r"(?<!\.)\.$", message):
        yield "ends with a full stop"
    yield from problems_of_words(message)


def problems_of_sentence(message):
    first = message[:1]
    # A value or a name may begin it.
    if first.islower() and not re.match(r"\w+(?:\(|_|=)", message):
        yield "does not start with a capital"
    if not message.endswith((".", ";", ")", "}", "?", "…")):
        yield "does not end as a sentence"
    yield from problems_of_words(message)


def problems_of_words(message):
    if YOU.search(message):
        yield "addresses the reader"
    if dialect.found(message) or THERE.search(message):
        yield "is not plain English"


FORMS = {"phrase": problems_of_phrase, "sentence": problems_of_sentence, "either": problems_of_words}
# Where the source does not tell: a column named detail has phrases in some functions and sentences in others.
OTHER = {"message": "phrase", "reason": "phrase", "why": "phrase", "detail": "either"}


def messages(code, declared=()):
    """Each text of a message with its form."""
    for pattern, positions in [*CONSTRUCTORS.items(), *declared]:
        for match in re.finditer(rf"(?<!fn ){pattern}\(", code):
            given, _ = arguments(code, match.end())
            for position, form in positions.items():
                if position < len(given):
                    yield from ((text, form) for text in literals(given[position]))
    yield from ((match[1], "phrase") for match in ENUM.finditer(code))
    yield from ((match[1], "sentence") for match in HINT_CONSTANT.finditer(code))
    for match in FIELD.finditer(code):
        yield LITERAL.match(code, match.end())[1], "sentence" if match[1] == "hint" else OTHER[match[1]]
    for match in LET.finditer(code):
        function = re.split(r"\n *(?:pub )?fn ", code[match.end() :])[0]
        form = "sentence" if match[1] == "hint" or f".detail({match[1]})" in function else OTHER[match[1]]
        yield from ((text, form) for text in literals(block(code, match.end()).split(";")[0]))
    for match in WORDS_OF.finditer(code):
        form = "sentence" if match[1] == "hint" else "phrase"
        yield from ((text, form) for text in STRING.findall(block(code, match.end())))
    yield from ((match[1].replace("''", "'"), "phrase") for match in RAISE.finditer(code))
    yield from ((match[2].replace("''", "'"), "sentence") for match in USING.finditer(code))


def problems(code, declared=(), is_contract=False):
    local = [(pattern, positions) for pattern, positions, _ in constructors(code)]
    for literal, form in messages(code, [*declared, *local]):
        message = unescape(literal)
        if is_contract and form == "phrase" and CONTRACT_FORM.fullmatch(message):
            form = "either"
        yield from (f"{problem}: {message}" for problem in FORMS[form](message))


@cache
def sources():
    found = sorted((ROOT / "sql").rglob("*.sql"))
    for folder in ["crates", "src"]:
        for path in sorted((ROOT / folder).rglob("*.rs")):
            parts = path.relative_to(ROOT).parts
            if not {"tests", "examples"} & set(parts) and path.name != "tests.rs":
                found.append(path)
    return found


def name(path):
    return str(path.relative_to(ROOT))


@cache
def exported():
    """The constructors of all sources: name, pattern, positions."""
    found = {}
    for path in sources():
        for pattern, positions, is_public in constructors(code_of(path)):
            if is_public:
                found[re.search(r"\w+$", pattern)[0], pattern] = positions
    return [(word, pattern, positions) for (word, pattern), positions in found.items()]


def known_to(code):
    """Those that a source imports or calls by a path, and methods."""
    imported = set(re.findall(r"\w+", " ".join(re.findall(r"\buse ([^;]+);", code))))
    called = set(re.findall(r"::(\w+)\(", code))
    local = {pattern for pattern, *_ in constructors(code)}
    return [
        (pattern, positions)
        for word, pattern, positions in exported()
        if pattern not in local and (pattern.startswith(r"\.") or word in imported | called)
    ]


@pytest.mark.parametrize("path", sources(), ids=name)
def test_form(path):
    code = code_of(path)
    found = list(problems(code, known_to(code), name(path) in CONTRACT))
    assert not found, "\n".join(found)


def test_the_sources_have_messages():
    found = {message for path in sources() for message in messages(code_of(path), known_to(code_of(path)))}
    assert len(found) > 800
    assert {form for _, form in found} == {"phrase", "sentence", "either"}


def test_constructors_are_found_by_their_declarations():
    found = {pattern: positions for _, pattern, positions in exported()}
    assert found[r"(?<![.\w])invalid"] == {0: "phrase"}
    assert found[r"\bFinding::new"] == {1: "phrase"}
    assert len(found) > 10


@pytest.mark.parametrize(
    "code",
    [
        'Fault::new(Code::Internal, "Something broke")',
        'Fault::new(Code::Internal, "something broke.")',
        'Fault::new(\n    Code::Internal,\n    format!("Something {x} broke", x(1, 2)),\n)',
        'Err(Fault::new(Code::Internal, if x { "a broken thing." } else { "none" }))',
        '#[error("there is no run {0}")]',
        'x.detail("not a sentence.")',
        'x.hint("No end")',
        'x.hint(format!("You \\\n   should."))',
        'x.detail(if y { "no sentence" } else { "One sentence." })',
        'fn broken(message: impl Into<String>) -> Fault { a(message) }\nfn f() { broken("You have no right") }',
        'fn broken(x: i32, why: String) -> Fault { a(x).detail(why) }\nfn f() { broken(1, "no sentence".to_owned()) }',
        'fn not_now(self: X, what: &str) { Fault::new(Code::Internal, what) }\nfn f() { not_now(a, "Not now") }',
        'let bad = |message: String| Err(a(message));\nbad("Bad.".into())',
        'let bad = |why| invalid("x").detail(why);\nbad("bad")',
        'impl Finding {\n    pub fn new(code: i32, message: &str) {}\n}\nfn f() { Finding::new(1, "There is none") }',
        'Fault { message: "You broke.".into(), ..f }',
        'Problem { hint: Some("do this"), message: x }',
        'let detail = if x { "no sentence" } else { "none at all" };\n fault.detail(detail)',
        'fn hint(self) -> &\'static str {\n match self { A => "no sentence" }\n}',
        'const X_HINT: &str = "no sentence";',
        'Check::error("There is no Y.", "Do this.")',
        'Check::warning(format!("{x} is missing"), "no end")',
        'Check::error(summary, "no end")',
        "RAISE EXCEPTION 'There is no table.'",
        "RAISE WARNING 'bad' USING DETAIL = 'no end', HINT = 'Do it.';",
    ],
)
def test_bad_forms_are_found(code):
    assert list(problems(code))


@pytest.mark.parametrize(
    "code",
    [
        'Fault::new(Code::Internal, "could not read the keyring")',
        'Fault::new(Code::Internal, format!("\\"{x}\\" does not exist"))',
        'Fault::new(Code::Internal, "JSON value is too large")',
        'x.detail("It has {n} bytes.")',
        'x.hint("SELECT skill_system.health();")',
        'x.hint(format!("{command};"))',
        'let bad = |why| invalid("x").detail(why);\nbad("It is bad.")',
        "RAISE WARNING 'bad' USING DETAIL = 'It is bad.', HINT = 'Do it.';",
    ],
)
def test_good_forms_pass(code):
    assert not list(problems(code))


def test_details_of_other_libraries_become_sentences():
    """What another library writes has its own form; sentence() gives it this one."""
    wrong = re.compile(r"\.(?:detail|hint)\((?:shorten\()?(?:&?\w*error\w*\.to_string\(\)|format!\(\"\{error\})")
    assert [name(path) for path in sources() if wrong.search(code_of(path))] == []
