"""Gates over the source that no linter has: where unsafe may stand, how long files and functions may be, who may import
whom."""

import re
import tomllib
from collections import defaultdict
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
CRATES = {
    "skill_system": ROOT / "src",
    "skill_core": ROOT / "crates/core/src",
    "skill_pg": ROOT / "crates/pg/src",
    "skill_verify": ROOT / "crates/verify/src",
}
# A comment, a string (raw, byte, C), or a character: what may hold anything without being code.
NO_CODE = re.compile(
    r"""(?P<comment>//[^\n]*|/\*.*?\*/)"""
    r"""|(?P<string>\b[bc]?r(?P<hashes>\#*)".*?"(?P=hashes)|\b[bc]?"(?:\\.|[^"\\])*"|"(?:\\.|[^"\\])*")"""
    r"""|(?P<char>b?'(?:\\(?:u\{[^}]*\}|x..|.)|[^'\\])')""",
    re.S,
)
UNIT_TESTS = re.compile(r"#\[cfg\(test\)\]\s*(?:#\[[^\]]*\]\s*)*mod \w+ \{.*\Z", re.S)


# Code that modules share and that registers nothing.
SHARED = {"versioned"}


def is_test(path):
    return "tests" in path.relative_to(ROOT).parts or path.stem.endswith("tests")


@cache
def sources():
    """Every Rust file that is not a test, with its text."""
    paths = sorted(path for folder in CRATES.values() for path in folder.rglob("*.rs"))
    return {path: path.read_text() for path in [*paths, ROOT / "build.rs"] if not is_test(path)}


@cache
def code(path):
    """The file with its lines, without comments, unit tests and what strings hold."""

    def blank(match):
        kind = match.lastgroup if match.lastgroup != "hashes" else "string"
        lines = "\n" * match.group().count("\n")
        return lines if kind == "comment" else f'"{lines}"' if kind == "string" else "' '"

    text = NO_CODE.sub(blank, sources()[path])
    return UNIT_TESTS.sub("", text)


def name(path):
    return str(path.relative_to(ROOT))


def in_root_package(path):
    return path.is_relative_to(CRATES["skill_system"])


def modules():
    """The modules of src/modules.rs."""
    listed = re.search(r"pub const ALL: &\[Module\] =\s*&\[(.*?)\];", code(CRATES["skill_system"] / "modules.rs"), re.S)
    return re.findall(r"(\w+)::MODULE", listed[1])


def test_unsafe_stands_only_in_the_boundary():
    found = [
        f"{name(path)}: {word}"
        for path in sources()
        if not path.is_relative_to(CRATES["skill_pg"])
        for word in re.findall(r"\bunsafe\b[^;\n]*|unsafe_code", code(path))
    ]
    assert found == []
    manifest = tomllib.loads((ROOT / "Cargo.toml").read_text())
    assert manifest["workspace"]["lints"]["rust"]["unsafe_code"] == "deny"
    for folder in (ROOT, ROOT / "crates/core", ROOT / "crates/verify"):
        assert tomllib.loads((folder / "Cargo.toml").read_text())["lints"] == {"workspace": True}, folder
    boundary = tomllib.loads((ROOT / "crates/pg/Cargo.toml").read_text())["lints"]
    assert boundary["rust"]["unsafe_op_in_unsafe_fn"] == "deny"
    assert boundary["clippy"]["undocumented_unsafe_blocks"] == "deny"


def test_modules_handle_no_raw_values():
    raw = re.compile(r"\bDatum\b|\binto_datum\b|\bfrom_datum\b|\bpg_extern\b|\bdirect_function_call\w*|\bSpi::")
    found = [f"{name(path)}: {word}" for path in sources() if in_root_package(path) for word in raw.findall(code(path))]
    assert found == []


def test_modules_return_faults():
    """Only the boundary raises: what is called by the server goes through it."""
    found = [
        f"{name(path)}: {word}"
        for path in sources()
        if in_root_package(path)
        for word in re.findall(r"\b(?:or_)?raise\b|\bpanic!|\bunreachable!|\btodo!|\.unwrap\(\)|\.expect\(", code(path))
    ]
    assert found == []


def test_arguments_are_read_once_and_first():
    found, bodies = [], 0
    for path in filter(in_root_package, sources()):
        exported = set(re.findall(r"pg_function!\((\w+)", code(path)))
        for function, body in functions(path):
            if function in exported:
                bodies += 1
                reads = [match.start() for match in re.finditer(r"\bcall\s*\.arguments\b", body)]
                # Constants are not statements.
                first = re.sub(r"const \w+: [^;]*;", lambda match: " " * len(match[0]), body).find(";")
                if len(reads) > 1 or reads and 0 <= first < reads[0]:
                    found.append(f"{name(path)}: {function}")
    assert bodies > 100
    assert found == []


def test_the_boundary_knows_no_module():
    # To the server, a policy is one of row security.
    words = re.compile(rf"\b(?!policy\b)(?:{'|'.join(set(modules()) - {'system'})})(?:_\w+)?\b")
    found = [
        f"{name(path)}: {word}"
        for path in sources()
        if path.is_relative_to(CRATES["skill_pg"])
        for word in words.findall(NO_CODE.sub(lambda match: match.group() if match["string"] else "", sources()[path]))
    ]
    assert found == []


def test_files_have_at_most_600_lines():
    lengths = {name(path): code(path).rstrip().count("\n") + 1 for path in sources()}
    assert [f"{path}: {lines} lines" for path, lines in lengths.items() if lines > 600] == []


def test_lines_have_at_most_140_characters():
    """rustfmt leaves strings as they are, and with them SQL."""
    found = [
        f"{name(path)}:{number}"
        for path, text in sources().items()
        if in_root_package(path) or path.is_relative_to(CRATES["skill_pg"])
        for number, line in enumerate(text.splitlines(), 1)
        if len(line) > 140
    ]
    assert found == []


def functions(path):
    """Name and text of each function, from its name to the brace that closes it."""
    text = code(path)
    for match in re.finditer(r"^[ \t]*(?:[\w()\" ]+ )?fn (\w+)", text, re.M):
        # The semicolon of an array's type is not the end of a declaration.
        body = re.compile(r"\{|;(?![^\[\]{}]*\])").search(text, match.end())
        if not body or body[0] == ";":
            continue
        depth, end = 0, body.start()
        for brace in re.finditer(r"[{}]", text[body.start() :]):
            depth += 1 if brace[0] == "{" else -1
            if depth == 0:
                end = body.start() + brace.start()
                break
        yield match[1], text[match.start() : end]


def test_functions_have_at_most_80_lines():
    found = [
        f"{name(path)}: {function} has {body.count(chr(10)) + 1} lines"
        for path in sources()
        for function, body in functions(path)
        if body.count("\n") >= 80
    ]
    assert found == []


def test_long_sql_stands_in_sql_files():
    statement = re.compile(r"\w*\#*\"\s*(?:SELECT|INSERT|UPDATE|DELETE|WITH|CREATE|ALTER)\b")
    found = []
    for path, text in sources().items():
        for match in NO_CODE.finditer(text):
            string = match["string"]
            if string and statement.match(string) and string.count("\n") >= 9:
                found.append(f"{name(path)}:{text.count(chr(10), 0, match.start()) + 1}")
        # Joined from several literals, with constants between them.
        lines = text.splitlines()
        for first, last, length in joined_literals(code(path)):
            if length >= 10 and any(map(statement.search, lines[first : last + 1])):
                found.append(f"{name(path)}:{first + 1}")
    assert sorted(set(found)) == []


def joined_literals(text):
    """First and last line of each call of concatcp!, concat! and format!, and how many lines its literals have."""
    for match in re.finditer(r"\b(?:concatcp|concat|format)!\(", text):
        depth, end = 1, match.end()
        while depth:
            depth += {"(": 1, ")": -1}.get(text[end], 0)
            end += 1
        literals = re.findall(r'"(\n*)"', text[match.end() : end])
        length = sum(len(newlines) + 1 for newlines in literals)
        yield text.count("\n", 0, match.start()), text.count("\n", 0, end), length


def test_no_macro_only_builds_sql():
    """A macro whose body is concat! of strings is a constant in disguise (const_format has concatcp)."""
    assert [f"{name(path)}: {found}" for path in sources() for found in TEXT_MACRO.findall(code(path))] == []
    for body in (
        'concat!("a", $x)',
        '"a"',
        'concatcp!("SELECT ", $x)',
        '{ concat!("a") }',
        "const_format::concatcp!($x)",
    ):
        assert TEXT_MACRO.search(f"macro_rules! m {{\n    ($x:expr) => {{\n        {body}\n    }};\n}}"), body


TEXT_MACRO = re.compile(r"macro_rules! (\w+) \{\s*\([^{]*\) => [\s{(]*(?:\w+::)*(?:concat!|concatcp!|\")")


def test_a_module_has_one_name_on_every_layer():
    listed = set(modules())
    folders = {path.name for path in CRATES["skill_system"].iterdir() if path.is_dir()}
    assert folders - SHARED == listed
    for layer in ("sql", "tests"):
        there = {path.name for path in (ROOT / layer).iterdir() if path.is_dir()}
        assert [f"{layer}/{module}" for module in listed - there] == []
    in_core = {module[0] for module in Crate(CRATES["skill_core"]).files if len(module) > 1}
    assert in_core - SHARED - listed == set(), "crates/core/src"


# --- Who imports whom.


def use_paths(tree, prefix=()):
    """The paths of a use tree: a::{b, c::d as e} is (a, b), (a, c, d)."""
    tree = tree.strip()
    if "{" not in tree:
        path = (*prefix, *(part.strip() for part in re.sub(r"\s+as\s+\w+$", "", tree).split("::")))
        yield path[:-1] if path[-1] in ("self", "*") and len(path) > 1 else path
        return
    head, inner = tree.split("{", 1)
    inner = inner[: inner.rindex("}")]
    here = (*prefix, *(part.strip() for part in head.split("::") if part.strip()))
    depth, item = 0, ""
    for letter in inner + ",":
        depth += (letter == "{") - (letter == "}")
        if letter == "," and depth == 0:
            if item.strip():
                yield from use_paths(item, here)
            item = ""
        else:
            item += letter


class Crate:
    def __init__(self, root):
        self.root = root
        self.files = {self.module(path): path for path in sources() if path.is_relative_to(root)}
        self.exports = {module: self.exported(module) for module in self.files}

    def module(self, path):
        parts = path.relative_to(self.root).with_suffix("").parts
        return parts[:-1] if parts[-1] in ("mod", "lib", "main") else parts

    def uses(self, module, exports):
        for match in re.finditer(r"^\s*(pub(?:\([^)]*\))? )?use ([^;]+);", code(self.files[module]), re.M):
            if bool(match[1]) == exports:
                yield from use_paths(match[2])

    def exported(self, module):
        """What `pub use` hands on: name to path."""
        return {path[-1]: path for path in self.uses(module, True)}

    def resolve(self, module, path, depth=0):
        """The module whose file has what a path means; None for another crate."""
        if path[0] == "crate":
            at, rest = (), path[1:]
        elif path[0] in ("super", "self"):
            at, rest = module, path
            while rest and rest[0] in ("super", "self"):
                at, rest = (at[:-1] if rest[0] == "super" else at), rest[1:]
        elif (*module, path[0]) in self.files:
            at, rest = module, path
        else:
            return None
        while rest and (*at, rest[0]) in self.files:
            at, rest = (*at, rest[0]), rest[1:]
        if rest and rest[0] in self.exports[at] and depth < 8:
            return self.resolve(at, self.exports[at][rest[0]], depth + 1) or at
        return at

    def imports(self, module):
        # What a file only hands on or lists for registration it does not use.
        text = re.sub(r"^\s*(?:pub(?:\([^)]*\))? )?use [^;]+;|\w+::MODULE\b", "", code(self.files[module]), flags=re.M)
        text = re.sub(r"^pub const MODULE: .*?;\n", "", text, flags=re.M | re.S)
        paths = [
            path for path in self.uses(module, False) if re.search(rf"\b{path[-1]}\b", text) or path[-1][0].isupper()
        ]
        paths += [tuple(match.split("::")) for match in re.findall(r"(?<![\w:$])(?:\w+::)+\w+", text)]
        return {found for path in paths if (found := self.resolve(module, path)) is not None and found != module}


def circles(graph):
    """The strongly connected components with more than one node."""
    reached = {}
    for start in graph:
        seen, todo = set(), [start]
        while todo:
            for node in graph[todo.pop()] - seen:
                seen.add(node)
                todo.append(node)
        reached[start] = seen
    found = {frozenset(b for b in reached[a] if a in reached[b]) for a in graph if a in reached[a]}
    return sorted(sorted(group) for group in found)


@pytest.mark.parametrize("crate", CRATES)
def test_no_circle_of_imports(crate):
    files = Crate(CRATES[crate])
    graph = defaultdict(set)
    for module in files.files:
        graph[module] = files.imports(module)
    assert [", ".join("::".join(module) or "lib" for module in circle) for circle in circles(dict(graph))] == []


def used_modules(crate):
    """Module to the modules that it imports, at the top of the crate."""
    files = Crate(CRATES[crate])
    used = defaultdict(set)
    for module in files.files:
        if module:
            used[module[0]] |= {found[0] for found in files.imports(module) if found and found[0] != module[0]}
    return dict(used)


@pytest.mark.parametrize("crate", CRATES)
def test_no_circle_of_modules(crate):
    assert circles({module: {*used} for module, used in used_modules(crate).items()}) == []


def test_modules_use_what_the_architecture_lists():
    rows = re.findall(r"^\| (\w+) \| [^|]+ \| ([^|]+) \|$", (ROOT / "ARCHITECTURE.md").read_text(), re.M)
    listed = {
        module: set(re.findall(r"\w+", re.sub(r"\(.*?\)", "", used))) for module, used in rows if module != "Module"
    }
    modules = {path.name for path in (ROOT / "sql").iterdir() if path.is_dir()}
    assert listed.keys() >= modules
    for crate in ("skill_core", "skill_system"):
        for module, used in used_modules(crate).items():
            if module in modules:
                assert used & modules <= listed[module], f"{crate}: {module}"
