"""Patterns are judged as git judges them, and a restore finds what it is told by name."""

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tasks.media import gitignore, patterns
from tasks.media.gitignore import check_patterns
from tasks.media.patterns import Rules, Selection

pytestmark = pytest.mark.skipif(shutil.which("git") is None, reason="git is the oracle")

Tree = dict[bytes, bool]
"""Paths, parents first; true for folders."""

SETTINGS = settings(max_examples=250, deadline=None)


class Git:
    """The oracle: what `git check-ignore` says of the files of a real tree."""

    def __init__(self, home: Path) -> None:
        self._home = home
        self._dir = home / "git"
        self._env = {
            "PATH": os.environ["PATH"],
            "GIT_CONFIG_GLOBAL": os.devnull,
            "GIT_CONFIG_NOSYSTEM": "1",
        }
        self._run("init", "-q", str(home / "unused"), "--separate-git-dir", str(self._dir))

    def _run(self, *args: str, stdin: bytes = b"") -> bytes:
        ran = subprocess.run(
            ["git", *args], input=stdin, capture_output=True, env=self._env, check=False
        )
        assert ran.returncode in (0, 1), ran.stderr
        return ran.stdout

    def lay_out(self, tree: Tree) -> str:
        root = tempfile.mkdtemp(dir=self._home)
        for path, is_dir in tree.items():
            at = os.path.join(os.fsencode(root), path)
            if is_dir:
                os.mkdir(at)
            else:
                os.close(os.open(at, os.O_CREAT | os.O_WRONLY))
        return root

    def ignored(self, root: str, patterns: Sequence[str], paths: Iterable[bytes]) -> set[bytes]:
        lines = b"".join(os.fsencode(pattern) + b"\n" for pattern in patterns)
        (self._dir / "info" / "exclude").write_bytes(lines)
        # "./" keeps git from reading a leading ':' as magic of its own.
        stdin = b"".join(b"./" + path + b"\0" for path in paths)
        where = ("-C", root, f"--git-dir={self._dir}", "--work-tree=.")
        said = self._run(*where, "check-ignore", "-z", "--stdin", "--no-index", stdin=stdin)
        return {path.removeprefix(b"./") for path in said.split(b"\0") if path}

    def ignored_in(self, tree: Tree, patterns: Sequence[str]) -> set[bytes]:
        root = self.lay_out(tree)
        try:
            return self.ignored(root, patterns, tree)
        finally:
            shutil.rmtree(root)


@pytest.fixture(scope="module")
def git(tmp_path_factory: pytest.TempPathFactory) -> Git:
    return Git(tmp_path_factory.mktemp("oracle"))


def tree_of(files: Iterable[bytes]) -> Tree:
    """Make a tree of as many of the files as can be together, with the folders they need."""
    tree: Tree = {}
    for path in files:
        parts = path.split(b"/")
        above = [b"/".join(parts[:n]) for n in range(1, len(parts))]
        if path not in tree and all(tree.get(folder, True) for folder in above):
            tree.update(dict.fromkeys(above, True))
            tree[path] = False
    return tree


def files_of(tree: Tree) -> set[bytes]:
    return {path for path, is_dir in tree.items() if not is_dir}


def walk(rules: Rules, tree: Tree) -> set[bytes]:
    """Take files as the scan does: from the top down, never below a folder that is not taken."""
    entered = {b""}
    taken = set()
    for path, is_dir in tree.items():
        if path.rpartition(b"/")[0] not in entered:
            continue
        if is_dir and rules.takes_dir(path):
            entered.add(path)
        elif not is_dir and rules.takes_file(path):
            taken.add(path)
    return taken


PLAIN = rb"""a.txt b.log A.TXT x/keep x/drop x/keep2/f.txt x/y/keep x/y/z/deep.txt a/b a/x/b a/x/y/b
    a/xb dir/f sub/dir/f sub/sub2/dir build/out sub/build !bang #hash [a] star*?[a] back\slash
    -dash ]br ^hat foo/bar/baz foo/bar/qux foo/other .hidden/a.txt .dot k1 k2 ka kb ab/cd/b
    abxb a/bcd/e/f {b,c} ~tilde w/w/w/w :colon back\ x]y"""
SPACED = b" lead and trail |trail |trail|tab\t|tab|new\nline|line\n|line|a \\ b|sp ace/f |cr\r|\xa0"
RAW = b"caf\xc3\xa9|caf\xe9|\xff\xfe/\xff|x\n/y\n|nl\n/a/\n"
FARM = tree_of([*PLAIN.split(), *SPACED.split(b"|"), *RAW.split(b"|")])

TRICKY = {
    "a name": ["a"],
    "negation": ["*.txt", "!a.txt"],
    "negation undone": ["*.txt", "!a.txt", "a*"],
    "order counts": ["!a.txt", "*.txt"],
    "only some files": ["*", "!*/", "!*.txt"],
    "nothing below an excluded folder": ["x/", "!x/keep"],
    "all but one": ["x/*", "!x/keep"],
    "all but a folder": ["x/*", "!x/keep2/", "x/keep2/*.log"],
    "all but one, deep": ["/*", "!/foo", "/foo/*", "!/foo/bar"],
    "leading stars": ["**/b"],
    "leading stars, folder": ["**/dir/"],
    "stars within": ["a/**/b"],
    "trailing stars": ["foo/**"],
    "trailing stars and exception": ["foo/**", "!foo/bar/", "!foo/bar/baz"],
    "stars alone": ["**"],
    "stars and slash": ["**/"],
    "three stars": ["***/b", "/***/qux"],
    "four stars": ["a/****/b"],
    "stars at a word": ["ab**"],
    "stars behind a literal": ["ab**/b"],
    "stars behind a literal, with a path": ["a/b**"],
    "stars behind a literal, at the end": ["a/b**", "!a/bcd/", "a/x**"],
    "stars behind a literal, twice": ["f**/**/b**"],
    "stars before a literal": ["**b/f", "a/**b"],
    "star and slash": ["*/"],
    "star for a segment": ["*/bar", "w/*/w"],
    "star not across folders": ["/foo/*x", "a/*b"],
    "question mark": ["k?", "??"],
    "question mark is a byte": ["caf?"],
    "question marks are bytes": ["caf??"],
    "question mark is a newline": ["line?", "new?line", "x?/y?"],
    "trailing spaces": ["trail   "],
    "escaped trailing space": ["trail\\ "],
    "escaped trailing space and more": ["trail\\   "],
    "leading space": [" lead and trail\\ "],
    "trailing tab": ["tab\t"],
    "no-break space": ["\udca0"],
    "carriage return": ["a.txt\r", "cr\r"],
    "space before slash": ["sp ace/ "],
    "escaped bang": ["\\!bang"],
    "bang": ["!bang"],
    "bang bang": ["*", "!!bang"],
    "escaped hash": ["\\#hash"],
    "comment": ["#hash"],
    "negated hash": ["*", "!#hash"],
    "escaped wildcards": ["star\\*\\?\\[a\\]", "\\[a]"],
    "escaped backslash": ["back\\\\slash"],
    "escaped letter": ["\\a.t\\xt"],
    "escaped slash": ["foo\\/bar", "a/**\\/b"],
    "escaped slash first": ["\\/a.txt"],
    "lone backslash": ["back\\", "a.txt\\"],
    "folder": ["dir/"],
    "folder within": ["sub/dir/"],
    "file is no folder": ["a.txt/", "sub/sub2/dir/", "build/"],
    "anchored": ["/dir", "/build"],
    "anchored by a slash within": ["sub/dir", "bar/baz"],
    "slash alone": ["/", "//", "!/"],
    "double slash": ["foo//bar", "//a.txt", "foo//", "a**//"],
    "dots": ["./a.txt", "x/../a.txt", "."],
    "blank": ["", "   ", "\t"],
    "class": ["k[0-9]", "[[]a]"],
    "class negated": ["k[!0-9]", "[^a-z]*"],
    "class with bracket": ["[]]br", "[]-]*"],
    "class with dash": ["[a-]*", "[-a]*"],
    "class with escapes": ["[\\]\\-]*", "back[\\\\]slash"],
    "class never slash": ["foo[/]bar", "foo[!x]bar", "foo[^/]bar", "foo[+-9]bar"],
    "class backwards": ["k[b-a]"],
    "class of bytes": ["caf[\udce9]", "caf[!a]"],
    "class by name": ["k[[:digit:]]", "[[:upper:]]*"],
    "class by unknown name": ["k[[:nought:]]"],
    "class with half a name": ["k[[:a]", "[[:]*"],
    "class open": ["k[12", "[", "[]"],
    "regex characters": ["{b,c}", "^hat", "~tilde", "a.t+t", "(a)", "a|b", "$"],
    "case counts": ["a.TXT", "A.*", "[A-Z].txt"],
    "newline in names": ["line", "new*"],
    "star over newline": ["n*e", "nl*/**/*"],
    "raw bytes": ["caf\udce9", "\udcff*/\udcff"],
    "non-ascii": ["café"],
    "hidden": [".*", "!.dot"],
    "colon": [":*"],
}


@pytest.mark.parametrize("patterns", TRICKY.values(), ids=TRICKY.keys())
def test_a_tricky_pattern_is_judged_as_git_judges_it(git: Git, patterns: list[str]) -> None:
    ignored = git.ignored_in(FARM, patterns)
    assert walk(Rules(patterns, []), FARM) == files_of(FARM) - ignored
    assert walk(Rules([], patterns), FARM) == files_of(FARM) & ignored


def test_the_oracle_tells_ignored_from_taken(git: Git) -> None:
    tree = tree_of([b"a.txt", b"b/a.txt", b"b/c"])
    assert git.ignored_in(tree, ["*.txt"]) == {b"a.txt", b"b/a.txt"}


@pytest.mark.parametrize(
    "inner",
    [
        *(f"[:{name}:]" for name in gitignore._CLASSES),
        *("!-~", "^a-c", "a-c-e", "--a", "]-a", "a\\-c", "\\a-\\c", "[:x", "[:]", "a-[:alpha:]"),
        *("!]a", "^^", "!!", "a-", "\\\\-a", "\udc80-\udcff", "é", "[", "]", "]]", "[:alpha:]-z"),
    ],
)
def test_a_bracket_matches_the_bytes_git_lets_it_match(git: Git, inner: str) -> None:
    tree = tree_of(b"x%c" % byte for byte in range(1, 256) if byte != ord("/"))
    patterns = [f"x[{inner}]"]
    assert walk(Rules([], patterns), tree) == git.ignored_in(tree, patterns)


names = st.sampled_from([b"a", b"b", b"ab", b"ba"])
trees = st.lists(st.lists(names, min_size=1, max_size=4).map(b"/".join), max_size=8).map(tree_of)
tokens = st.sampled_from(["a", "b", "*", "?", "/", "!", "[ab]", "**", "/**/", "*/"])
globs = st.lists(tokens, min_size=1, max_size=6).map("".join)


@SETTINGS
@given(tree=trees, patterns=st.lists(globs, min_size=1, max_size=4))
@example(tree=tree_of([b"b/a/b", b"ab/b"]), patterns=["/**/*/", "!b", "b**/b"])
def test_a_walk_takes_the_files_of_which_git_says_nothing(
    git: Git, tree: Tree, patterns: list[str]
) -> None:
    assert walk(Rules(patterns, []), tree) == files_of(tree) - git.ignored_in(tree, patterns)


odd_names = st.binary(min_size=1, max_size=3).filter(
    lambda name: name not in (b".", b"..") and not {0, ord("/")} & set(name)
)
odd_tokens = st.sampled_from([*"ab*?[]-^!#\\/ \t", "\\ ", "[^a]", "[[:alpha:]]", "\udcff"])


@SETTINGS
@given(
    tree=st.lists(odd_names | names, max_size=6).map(tree_of),
    patterns=st.lists(st.lists(odd_tokens, max_size=6).map("".join), min_size=1, max_size=3),
)
def test_odd_names_and_odd_patterns_are_judged_as_git_judges_them(
    git: Git, tree: Tree, patterns: list[str]
) -> None:
    assert walk(Rules(patterns, []), tree) == files_of(tree) - git.ignored_in(tree, patterns)


def test_without_patterns_there_is_nothing_to_ask() -> None:
    assert Rules([], []).empty
    assert Rules(["# only a remark", "", "!nothing to take back"], []).empty
    assert not Rules(["a"], []).empty
    assert not Rules([], ["a"]).empty


def test_an_include_takes_what_lies_below_a_folder_it_names() -> None:
    tree = tree_of([b"docs/a/b.txt", b"docs/c", b"other/docs/d", b"other/e.jpg", b"other/f"])
    assert walk(Rules([], ["/docs", "*.jpg"]), tree) == {b"docs/a/b.txt", b"docs/c", b"other/e.jpg"}


def test_an_include_cannot_bring_back_what_is_excluded() -> None:
    tree = tree_of([b"docs/a.txt", b"docs/a.tmp", b"docs/cache/b.txt", b"c.txt"])
    rules = Rules(["*.tmp", "cache/"], ["docs/", "*.tmp", "cache/b.txt"])
    assert walk(rules, tree) == {b"docs/a.txt"}


def test_folders_on_the_way_to_an_included_file_are_kept() -> None:
    rules = Rules([], ["*.txt"])
    assert rules.takes_dir(b"far")
    assert rules.takes_dir(b"far/away")
    assert rules.takes_file(b"far/away/a.txt")
    assert not rules.takes_file(b"far/away/a.jpg")


def test_an_include_that_names_nothing_takes_nothing() -> None:
    assert not Rules([], ["# remark"]).takes_file(b"a")


@pytest.mark.parametrize("pattern", ["docs", "docs/", "/docs", "docs/*", "docs/**", "*", "d?cs"])
def test_a_source_is_selected_by_its_name(pattern: str) -> None:
    assert Selection([pattern]).selects("docs", b"a/b.txt", False)


@pytest.mark.parametrize(
    ("pattern", "selected"),
    [
        ("docs/a/b.txt", {b"a/b.txt"}),
        ("a/b.txt", {b"a/b.txt"}),
        ("b.txt", {b"a/b.txt", b"c/a/b.txt"}),
        ("*.txt", {b"a/b.txt", b"c/a/b.txt", b"d.txt"}),
        ("a/", {b"a", b"a/b.txt", b"c/a", b"c/a/b.txt"}),
        ("a", {b"a", b"a/b.txt", b"c/a", b"c/a/b.txt", b"e/a"}),
        ("/a", {b"a", b"a/b.txt"}),
        ("/docs/a", {b"a", b"a/b.txt"}),
        ("docs/*.txt", {b"d.txt"}),
        ("/*.txt", {b"d.txt"}),
        ("**/a/b.txt", {b"a/b.txt", b"c/a/b.txt"}),
        ("c/**/b.txt", {b"c/a/b.txt"}),
        ("other/a", set()),
        ("", set()),
        ("# remark", set()),
        ("ocs", set()),
    ],
)
def test_a_pattern_selects(pattern: str, selected: set[bytes]) -> None:
    tree = tree_of([b"a/b.txt", b"c/a/b.txt", b"d.txt", b"e/a"])
    selection = Selection([pattern])
    assert {p for p, is_dir in tree.items() if selection.selects("docs", p, is_dir)} == selected


def test_the_source_itself_is_selected_by_its_name_alone() -> None:
    assert Selection(["docs/"]).selects("docs", b"", True)
    assert not Selection(["docs/a"]).selects("docs", b"", True)
    assert not Selection(["a"]).selects("docs", b"", True)


def test_sources_are_kept_apart() -> None:
    selection = Selection(["docs/a", "b"])
    assert selection.selects("docs", b"a/x", False)
    assert not selection.selects("more", b"a/x", False)
    assert selection.selects("more", b"b/x", False)


def test_a_later_pattern_takes_files_out_of_a_selection() -> None:
    selection = Selection(["*.txt", "!secret.txt"])
    assert selection.selects("docs", b"a.txt", False)
    assert not selection.selects("docs", b"b/secret.txt", False)


ODD = ["star*?[a]", "#hash", " lead and trail ", "back\\slash", "!bang", "[", "a\\", "new\nline"]


@pytest.mark.parametrize("name", [*ODD, "caf\udce9", "é", "cr\r", "**", "!", "#", " ", "a**b", "?"])
def test_an_odd_name_is_found_when_given_to_the_letter(name: str) -> None:
    rel = os.fsencode(f"in/{name}")
    for pattern in (name, f"in/{name}", f"docs/in/{name}"):
        assert Selection([pattern]).selects("docs", rel, False)
        assert Selection([pattern]).selects("docs", rel + b"/below/it", False)


@pytest.mark.parametrize("name", ODD[:6])
def test_a_backslash_takes_the_meaning_from_a_character(name: str) -> None:
    escaped = "".join(f"\\{char}" for char in name)
    selection = Selection([escaped])
    assert selection.selects("docs", os.fsencode(name), False)
    assert not selection.selects("docs", b"starry?a", False)


@SETTINGS
@given(path=st.lists(odd_names, min_size=1, max_size=3).map(b"/".join))
def test_any_path_names_itself(path: bytes) -> None:
    given_path = os.fsdecode(path)
    assert Selection([f"docs/{given_path}"]).selects("docs", path, False)
    assert Selection([given_path]).selects("docs", path, False)
    assert Selection([os.path.basename(given_path)]).selects("docs", path + b"/x", False)


@settings(max_examples=120, deadline=None)
@given(tree=trees, pattern=globs.filter(lambda glob: not glob.startswith("!")))
def test_a_selection_is_what_git_would_match_from_the_source_or_from_above_it(
    git: Git, tree: Tree, pattern: str
) -> None:
    root = git.lay_out({b"a": True} | {b"a/" + path: is_dir for path, is_dir in tree.items()})
    from_above = git.ignored(root, [pattern], [b"a/" + path for path in tree])
    from_source = git.ignored(os.path.join(root, "a"), [pattern], tree)
    selection = Selection([pattern])
    for path, is_dir in tree.items():
        expected = path in from_source or b"a/" + path in from_above
        assert selection.selects("a", path, is_dir) == expected, path
    shutil.rmtree(root)


def test_forgetting_folders_changes_no_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patterns, "_MOST_FOLDERS", 2)
    selection = Selection(["b/c/", "!b/c/d"])
    tree = tree_of([b"a/b", b"b/a/a", b"b/c/d/e/f", b"b/d", b"c/d/e", b"b/c/g"])
    selected = {path for path in files_of(tree) if selection.selects("s", path, False)}
    assert selected == {b"b/c/d/e/f", b"b/c/g"}


def test_a_path_of_any_depth_is_judged() -> None:
    deep = b"/".join([b"d"] * 3000)
    assert not Selection(["x"]).selects("docs", deep, False)
    assert not Rules([], ["x"]).takes_file(deep)
    assert Rules([], ["x"]).takes_file(b"x/" + deep)


@pytest.mark.parametrize("pattern", ["*a" * 12 + "b", "*a?" * 8 + "b/c"])
def test_a_pattern_of_many_stars_takes_no_time(pattern: str) -> None:
    begun = time.perf_counter()
    assert Rules([pattern], []).takes_file(b"a" * 255)
    assert Rules([pattern], []).takes_dir(b"a" * 255)
    assert time.perf_counter() - begun < 1


def test_a_selection_over_many_entries_takes_a_moment() -> None:
    selection = Selection(["docs/d7/f7", "*.jpg", "d1*/x/", "star*?[a]"])
    begun = time.perf_counter()
    for number in range(100_000):
        selection.selects("docs", b"d%d/e/f%d" % (number // 100, number), False)
    assert time.perf_counter() - begun < 3  # measured: 0.25 s


@pytest.mark.parametrize(
    ("pattern", "reason"),
    [
        ("", "is blank"),
        ("  ", "is blank"),
        ("#recycle", "write '\\#'"),
        ("/", "names nothing"),
        ("!", "names nothing"),
        ("a[b", "without its ']'"),
        ("a[[:nought:]]", "[:nought:]"),
        ("a\\", "backslash"),
        ("a\0b", "NUL"),
        ("*.tmp\n*.bak", "several lines"),
        ("a//b", "two slashes"),
        ("./a", "begin at the source"),
        ("a/../b", "begin at the source"),
        ("\ud800", "no name can"),
    ],
)
def test_a_pattern_that_cannot_work_is_told_in_a_sentence(pattern: str, reason: str) -> None:
    (sentence,) = check_patterns(["good", pattern])
    assert sentence.startswith(f"Pattern {pattern!r} ")
    assert sentence.endswith(".")
    assert reason in sentence
    Rules([pattern], [pattern])
    Selection([pattern])


def test_good_patterns_pass_the_check() -> None:
    good = ["*.tmp", "!keep", "a/**/b", "\\#x", "\\!y", "/a", "b/", "[ab]", "a b\\ ", "..a", "é"]
    assert check_patterns(good) == []
