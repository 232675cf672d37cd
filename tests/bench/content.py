"""What lies in the files of the corpora: words that compress, and noise that does not."""

import numpy as np

_LETTERS = np.frombuffer(b"etaoinshrdlucmfwypvbgkjqxz", np.uint8)
_WORDS, _LENGTH = 2048, 8


class Content:
    """An endless stream of bytes; the same seed gives the same stream."""

    def __init__(self, seed: int) -> None:
        self._chance = np.random.default_rng(seed)
        letters = self._chance.choice(_LETTERS, (_WORDS, _LENGTH))
        lengths = self._chance.integers(2, _LENGTH, _WORDS)
        letters[np.arange(_LENGTH) >= lengths[:, None]] = ord(" ")
        letters[::17, -1] = ord("\n")
        self._words = np.ascontiguousarray(letters).view("V8").ravel()

    def words(self, size: int) -> bytes:
        """Return text of which some words are frequent; `lz4 -1` makes about half of it."""
        drawn = self._chance.random(size // _LENGTH + 1) ** 4
        text: bytes = self._words[(drawn * _WORDS).astype(np.int64)].tobytes()
        return text[:size]

    def noise(self, size: int) -> bytes:
        """Return bytes that no program makes smaller."""
        return self._chance.bytes(size)
