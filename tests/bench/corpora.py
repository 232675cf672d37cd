"""The corpora: three trees that are the same wherever and whenever they are made."""

import contextlib
import dataclasses
import os
from collections.abc import Callable, Iterator

import numpy as np

from tests.bench.content import Content

KIB, MIB = 1 << 10, 1 << 20
# Nanoseconds: when the oldest file was written, and a year, in which all of them were.
_BEGIN, _YEAR = 1_600_000_000 * 10**9, 31_536_000 * 10**9
_ODD_NAMES = (
    b" blanks around ",
    b"new\nline",
    b"tab\tstop",
    b"-rf",
    b"quote'\"`$HOME",
    b"back\\slash",
    b"star*?[a-z]",
    b"#hash%20",
    b".hidden",
    b"escape\x1b[31m",
    b"latin-\xe9",
    b"broken-\xff\xfe",
    "composed-\u00e9".encode(),
    "decomposed-e\u0301".encode(),
    "日本語".encode(),
    "🎈".encode(),
    b"Case",
    b"case",
    b"n" * 255,
)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Corpus:
    """A tree; `folder` is the part of it, about 1 %, that is restored alone."""

    name: str
    path: str
    folder: str
    files: int
    bytes: int


def make(name: str, root: str, scale: float) -> Corpus:
    """Make a corpus below a folder; a scale of 1 is its full size."""
    path = os.path.join(root, name)
    tree = _Tree(os.fsencode(path), Content(list(CORPORA).index(name)))
    folder = CORPORA[name](tree, scale)
    return Corpus(name=name, path=path, folder=folder, files=tree.files, bytes=tree.bytes)


def change(corpus: Corpus, seed: int) -> int:
    """Change 1 % of the files, or of the bytes where files are few; return how many files.

    Of the files half are written anew, a fifth are added, a fifth deleted, a tenth renamed.
    """
    content = Content(1000 + seed)
    chance = np.random.default_rng(2000 + seed)
    files = sorted(_regular(os.fsencode(corpus.path)))
    if len(files) < 100:
        _overwrite(files[seed % len(files)], corpus.bytes // 100, content, chance)
        return 1
    picked = chance.choice(len(files), max(10, len(files) // 100), replace=False)
    for turn, number in enumerate(picked.tolist()):
        _change_one(files[number], turn % 10, content)
    return len(picked)


class _Tree:
    """A tree that grows, and counts what it has."""

    def __init__(self, root: bytes, content: Content) -> None:
        self.root, self.content = root, content
        self.chance = np.random.default_rng(7)
        self.files = self.bytes = 0
        os.makedirs(root)

    def path(self, name: bytes) -> bytes:
        """Return where a name lies, and make the folders on the way."""
        path = os.path.join(self.root, name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        return path

    def add(self, name: bytes, pieces: Iterator[bytes], mode: int = 0o644) -> bytes:
        """Write a file piece by piece; return its path."""
        path = self.path(name)
        with open(path, "xb") as file:
            for piece in pieces:
                file.write(piece)
            self.bytes += file.tell()
        os.chmod(path, mode)
        self.age(path)
        self.files += 1
        return path

    def age(self, path: bytes) -> None:
        """Give a file a time that does not depend on now."""
        when = _BEGIN + int(self.chance.integers(_YEAR))
        os.utime(path, ns=(when, when), follow_symlinks=False)


def _small(tree: _Tree, scale: float) -> str:
    """100,000 files of 1 to 16 KiB in folders of ten; small ones are more frequent."""
    count = max(100, int(100_000 * scale))
    sizes = np.exp(tree.chance.uniform(np.log(KIB), np.log(16 * KIB), count)).astype(int)
    for number, size in enumerate(sizes.tolist()):
        group = number // 10
        folder = b"%d/%d/%d" % (group % 10, group // 10 % 10, group // 100)
        text = number % 4 != 3
        piece = tree.content.words(size) if text else tree.content.noise(size)
        tree.add(b"%s/%05d.%s" % (folder, number, b"txt" if text else b"jpg"), iter([piece]))
    return "0/0"


def _mixed(tree: _Tree, scale: float) -> str:
    """A home folder: 20,000 files, 2 GiB; few large ones hold most of it."""
    count = max(200, int(20_000 * scale))
    sizes = tree.chance.lognormal(np.log(8 * KIB), 2.27, count)
    for _ in range(3):  # what the largest may not have, the others share
        sizes = np.minimum(sizes * (2048 * MIB * scale / sizes.sum()), 64 * MIB)
    made: list[bytes] = []
    for number, size in enumerate(sizes.astype(int).tolist()):
        name = _home_name(tree, number)
        made.append(tree.add(name, _home_pieces(tree, number, size, made), _mode(number)))
        if number % 100 == 5:
            with contextlib.suppress(OSError):  # not every file system keeps them
                os.setxattr(made[-1], b"user.origin", b"https://example.org/%d" % number)
    _links(tree, made)
    _oddities(tree, max(2, count // 2000))
    return "folder 0/part 0"


def _home_name(tree: _Tree, number: int) -> bytes:
    odd = _ODD_NAMES[number % len(_ODD_NAMES)]
    if number % 500 < len(_ODD_NAMES):
        return b"odd/%d/%s" % (number // 500, odd)
    if number % 1000 == 999:
        return b"deep/%d/%s/end" % (number, b"/".join([b"deeper and deeper"] * 40))
    if number % 2000 == 1500:
        return b"odd folders/%s/%d" % (odd[:200] + b" %d" % number, number)
    part = 0 if number % 100 == 50 else int(tree.chance.beta(1, 2) * 20)
    suffix = (b"txt", b"jpg")[number % 5 == 0]
    return b"folder %d/part %d/%d/%05d.%s" % (number % 10, part, number // 700, number, suffix)


def _home_pieces(tree: _Tree, number: int, size: int, made: list[bytes]) -> Iterator[bytes]:
    if number % 100 == 17:
        return
    if number % 50 == 33:  # a copy of another file
        with open(made[int(tree.chance.integers(len(made)))], "rb") as file:
            yield file.read()
        return
    noisy = tree.chance.random() < (0.6 if size > 256 * KIB else 0.2)
    yield tree.content.noise(size) if noisy else tree.content.words(size)


def _mode(number: int) -> int:
    return (0o644, 0o644, 0o644, 0o600, 0o755, 0o664, 0o444)[number % 7]


def _links(tree: _Tree, made: list[bytes]) -> None:
    """Add a hard link and two symbolic links, one of them broken, for every hundred files."""
    for number in range(len(made) // 100):
        target = made[int(tree.chance.integers(len(made)))]
        os.link(target, tree.path(b"links/hard %d" % number))
        inside = os.path.relpath(target, tree.path(b"links/"))
        for name, goal in ((b"soft", inside), (b"broken", b"/nowhere/\xff%d" % number)):
            link = tree.path(b"links/%s %d" % (name, number))
            os.symlink(goal, link)
            tree.age(link)


def _oddities(tree: _Tree, sparse: int) -> None:
    """Add sparse files of 16 MiB with 256 KiB in them, a fifo and an empty folder."""
    for number in range(sparse):
        path = tree.path(b"sparse/%d.img" % number)
        with open(path, "xb") as file:
            for place in tree.chance.integers(256, size=4).tolist():
                file.seek(place * 64 * KIB)
                file.write(tree.content.words(64 * KIB))
            file.truncate(16 * MIB)
        tree.age(path)
        tree.files += 1
        tree.bytes += 16 * MIB
    os.mkfifo(tree.path(b"odd/fifo"), 0o640)
    tree.path(b"empty/")


def _large(tree: _Tree, scale: float) -> str:
    """Four files of 512 MiB; two can be compressed, two cannot."""
    pieces = max(1, round(512 * scale))
    for number in range(4):
        draw = tree.content.noise if number % 2 else tree.content.words
        tree.add(b"disk %d/image" % number, (draw(MIB) for _ in range(pieces)))
    return "disk 0"


CORPORA: dict[str, Callable[[_Tree, float], str]] = {
    "small": _small,
    "mixed": _mixed,
    "large": _large,
}


def _regular(root: bytes) -> Iterator[bytes]:
    """Find all files that are neither links, nor linked, nor sparse."""
    for folder, _, names in os.walk(root):
        for name in names:
            path = os.path.join(folder, name)
            facts = os.lstat(path)
            is_file = os.path.isfile(path) and not os.path.islink(path)
            if is_file and facts.st_nlink == 1 and facts.st_blocks * 1024 >= facts.st_size:
                yield path


def _change_one(path: bytes, turn: int, content: Content) -> None:
    size = os.path.getsize(path)
    if turn < 5:
        os.chmod(path, 0o644)
        with open(path, "wb") as file:
            file.write(content.words(size + 10))
    elif turn < 7:
        with open(os.path.join(os.path.dirname(path), b"new %d" % size), "wb") as file:
            file.write(content.words(size + 100))
    elif turn < 9:
        os.unlink(path)
    else:
        os.rename(path, os.path.join(os.path.dirname(path), b"renamed %d" % size))


def _overwrite(path: bytes, size: int, content: Content, chance: np.random.Generator) -> None:
    """Overwrite so many bytes of a file in place, in up to twenty pieces here and there."""
    piece = max(1, size // 20)
    with open(path, "r+b") as file:
        for place in chance.integers(max(1, os.path.getsize(path) - piece), size=20).tolist():
            file.seek(place)
            file.write(content.words(piece))
