"""Cut a long passage into windows that a judge reads one by one, and a long query to its beginning and its end.

Lengths are counted in characters of Latin letters, of which about four make a token. A character of another script
counts for as many as it takes tokens (`_WIDTHS`): a Chinese one for four. So a window takes about the same number of
tokens in every language. The estimate is rough: tokenizers differ by a factor of two and more.
"""

import math
import re
import unicodedata
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from tasks.prompts.prompt import CUT, drop_invisible, neutralise

_PER_TOKEN = 4  # Latin letters
# From which code point on a character counts for how many Latin letters. Measured on sentences of ours, in tokens a
# character, by the tokenizers of Qwen2.5 and of MiniLM: English .21 and .21, German .30 and .35, Russian .32 and .82,
# Arabic .30 and .84, Hebrew .39 and .83, Hindi .96 and .62, Thai .48 (MiniLM cannot read it), Chinese .62 and 1.0,
# Japanese .70 and 1.0, Korean .79 and 1.19.
_WIDTHS = (
    (0x0, 1),  # Latin, and the marks put on its letters
    (0x370, 2),  # Greek, Cyrillic, Armenian, Hebrew, Arabic
    (0x900, 3),  # the scripts of India, Thai, Lao, Tibetan, Georgian, Amharic, Khmer
    (0x1E00, 1),  # Latin with marks, as in Vietnamese
    (0x1F00, 2),  # Greek with marks
    (0x2000, 1),  # dashes, quotes, spaces
    (0x2070, 2),  # currencies, arrows, mathematics
    (0x2E80, 4),  # Chinese and Japanese
    (0xA4D0, 2),
    (0xAC00, 4),  # Korean
    (0xD7B0, 2),
    (0xF900, 4),  # Chinese
    (0xFB00, 2),  # forms of Arabic letters
    (0xFE30, 4),  # full-width forms
    (0x10000, 4),  # emoji, rare Chinese characters
)
_FROM, _WIDTH = (np.array(column, dtype=np.uint32) for column in zip(*_WIDTHS, strict=True))
_MOST_WIDER = 1.25  # a text up to so much wider than Latin is cut like Latin
_OVERLAP = 8  # of its size, which part of a window the next one shows again
_SLACK = 4  # of its size, which part of a window is searched for the end of a sentence
_LONGEST_CLUSTER = 32  # characters that are seen as one sign; what is longer is cut
_CLOSING = "[\"'\u00bb\u2019\u201d\u300d\u300f\uff09)\\]]*"
# The ends of sentences: with a space after them, or by marks that no space follows in Chinese, Japanese and Hindi.
_SENTENCE = re.compile(
    rf"[.!?\u2026]+{_CLOSING}\s+|[\u3002\uff01\uff1f\uff0e\uff61\u0964\u0965\u061f\u06d4\u1362\u0f0d\u17d4\u104b]+"
    rf"{_CLOSING}\s*|\n\s*"
)
_WORD = re.compile(r"\s+|[\u3001\uff0c\uff1b\uff1a\u060c\u061b]")
_FEW = 16  # characters that are not split
_JOINER, _VIRAMA, _MARKS = "\u200d", 9, ("Mn", "Mc", "Me")
_SKINS, _FLAGS, _JAMO = ("\U0001f3fb", "\U0001f3ff"), ("\U0001f1e6", "\U0001f1ff"), ("\u1160", "\u11ff")


@dataclass(frozen=True)
class Window:
    """A part of a text. start, end: its place in the text, in characters, without those that are invisible.

    body: what stands there. heading: the title, shown before a part that does not begin the text. is_last: whether the
    part ends the text.
    """

    start: int
    end: int
    body: str
    heading: str = ""
    is_last: bool = True

    @property
    def text(self) -> str:
        """Return the part as it is shown: cuts are marked, tags neutralised."""
        if not self.start:
            shown = self.body if self.is_last else self.body.rstrip() + CUT
        else:
            before = f"{self.heading}{CUT} " if self.heading else f"{CUT.strip()} "
            shown = before + self.body.strip() + ("" if self.is_last else CUT)
        return neutralise(shown)


def measure(text: str) -> int:
    """Return the length of a text, counted in Latin letters.

    >>> measure("bread"), measure("面包"), measure("хлеб")
    (5, 8, 8)
    """
    return len(text) if text.isascii() else int(_widths(text).sum())


def estimate_tokens(text: str) -> int:
    """Estimate how many tokens a text has: one for four Latin letters.

    >>> estimate_tokens("bread and butter"), estimate_tokens("面包")
    (4, 2)
    """
    return math.ceil(measure(text) / _PER_TOKEN)


def cut_windows(text: str, size: int, heading: str = "") -> list[Window]:
    """Cut a text into windows of at most `size` that overlap; together they show all of it.

    A text of at most `size` characters is one window. In Latin script the first window is what stands before character
    `size`, as it was shown when the rest was not read. The other windows begin and end between sentences where they
    can, otherwise between words, and never within a sign. The number of windows grows with the text's length only.

    Args:
        text: the whole text.
        size: the most characters of a window, counted in Latin letters.
        heading: the title, if the text begins with it. It is shown before each window but the first.
    """
    plain, title = drop_invisible(text), drop_invisible(heading)
    if len(plain) <= size:
        return [Window(0, len(plain), plain)]
    if not plain.startswith(title) or measure(title) + len(CUT) > size // _SLACK:
        title = ""
    lengths = _Lengths(plain)
    is_latin = lengths.between(0, size) <= _MOST_WIDER * size
    first = _whole(plain, size, 0) if is_latin else _end(lengths, 0, size)
    room = size - measure(title) - len(CUT) if title else size
    spans = [(0, first), *_further(lengths, 0, first, room)]
    return [_window(plain, span, title) for span in spans]


def split_window(window: Window) -> list[Window]:
    """Cut a window into smaller ones of about half its size; the same window alone if it has few characters."""
    if len(window.body) < _FEW:
        return [window]
    size = measure(window.body) * 9 // 16  # half of it, and the overlap
    lengths = _Lengths(window.body)
    first = _end(lengths, 0, size)
    spans = [(0, first), *_further(lengths, 0, first, size)]
    return [
        replace(
            window,
            start=window.start + start,
            end=window.start + end,
            body=window.body[start:end],
            is_last=window.is_last and end == len(window.body),
        )
        for start, end in spans
    ]


def shorten(text: str, size: int) -> str:
    """Show the beginning and the end of a text: the question, and the last turn of a dialogue.

    Between them stands the mark of a cut. A text of at most `size`, counted in Latin letters, is shown whole.

    >>> shorten("A long story about bread. How is it baked?", 36)
    'A long story about […] How is it baked?'
    """
    plain = drop_invisible(text)
    if measure(plain) <= size:
        return neutralise(plain)
    lengths = _Lengths(plain)
    half = max(1, size // 2)
    first = _end(lengths, 0, half)
    earliest = max(first, lengths.back(len(plain), half))
    last = _begin(lengths, earliest, lengths.on(earliest, half // _SLACK))
    return neutralise(f"{plain[:first].rstrip()}{CUT} {plain[last:].lstrip()}")


class _Lengths:
    """Finds places in a text by the length of what stands before them."""

    def __init__(self, text: str) -> None:
        self.text = text
        self._ends = np.concatenate([[0], np.cumsum(_widths(text), dtype=np.int64)])

    def between(self, start: int, end: int) -> int:
        return int(self._ends[min(end, len(self.text))] - self._ends[start])

    def on(self, start: int, size: int) -> int:
        """Return the last place that is at most `size` after `start`, and at least one character."""
        place = int(np.searchsorted(self._ends, self._ends[start] + size, side="right")) - 1
        return min(len(self.text), max(place, start + 1))

    def back(self, end: int, size: int) -> int:
        """Return the first place that is at most `size` before `end`."""
        return int(np.searchsorted(self._ends, self._ends[end] - size, side="left"))


def _widths(text: str) -> npt.NDArray[np.uint32]:
    codes = np.frombuffer(text.encode("utf-32-le", errors="surrogatepass"), dtype="<u4")
    found: npt.NDArray[np.uint32] = _WIDTH[np.searchsorted(_FROM, codes, side="right") - 1]
    return found


def _window(plain: str, span: tuple[int, int], heading: str) -> Window:
    start, end = span
    return Window(start, end, plain[start:end], heading, end == len(plain))


def _further(lengths: _Lengths, start: int, end: int, size: int) -> list[tuple[int, int]]:
    """Return the windows after the first one, which is (start, end)."""
    spans: list[tuple[int, int]] = []
    whole = len(lengths.text)
    while end < whole:
        before = start
        start = _overlap(lengths, before, end, size)
        if lengths.between(start, whole) <= size:  # the last one: not a mere rest, but half a window
            half = max(before + 1, lengths.back(whole, size // 2))
            if lengths.between(min(half, start), start) > size // _OVERLAP:
                start = _begin(lengths, half, min(start, lengths.on(half, size // _SLACK)))
            end = whole
        else:
            end = _end(lengths, start, size)
        spans.append((start, end))
    return spans


def _overlap(lengths: _Lengths, before: int, end: int, size: int) -> int:
    """Return where a window begins that follows the one from `before` to `end`: some way before its end."""
    wanted = min(end, max(before + 1, lengths.back(end, size // _OVERLAP)))
    earliest = min(end, max(before + 1, lengths.back(end, size // _SLACK)))
    starts = [found.end() for found in _SENTENCE.finditer(lengths.text, earliest, end) if found.end() < end]
    if starts:
        return min(starts, key=lambda start: abs(start - wanted))
    return _begin(lengths, wanted, end)


def _begin(lengths: _Lengths, earliest: int, latest: int) -> int:
    """Return the first place between two at which a sentence begins, else a word, else a sign; else `earliest`."""
    text = lengths.text
    for pattern in (_SENTENCE, _WORD):
        found = pattern.search(text, earliest, latest)
        if found and found.end() < latest:
            return found.end()
    signs = range(max(1, earliest), min(latest, earliest + _LONGEST_CLUSTER) + 1)
    return next((place for place in signs if place >= len(text) or not _is_joined(text, place)), earliest)


def _end(lengths: _Lengths, start: int, size: int) -> int:
    """Return the last place at most `size` after `start` at which a sentence ends, else a word, else a sign."""
    text = lengths.text
    latest = lengths.on(start, size)
    if latest == len(text):
        return latest
    earliest = max(start + 1, lengths.back(latest, size // _SLACK))
    for pattern in (_SENTENCE, _WORD):
        ends = [found.end() for found in pattern.finditer(text, earliest, latest)]
        if ends:
            return ends[-1]
    return _whole(text, latest, start)


def _whole(text: str, place: int, least: int) -> int:
    """Return the last place up to `place`, and after `least`, that cuts no sign in two; `place` if there is none."""
    for earlier in range(place, max(least, place - _LONGEST_CLUSTER, 0), -1):
        if earlier >= len(text) or not _is_joined(text, earlier):
            return earlier
    return place


def _is_joined(text: str, place: int) -> bool:
    """Tell whether the characters before and after a place make one sign: a letter and its mark, parts of an emoji."""
    before, after = text[place - 1], text[place]
    if after.isascii():
        return before == "\r" and after == "\n"
    if unicodedata.category(after) in _MARKS or _JOINER in (before, after) or unicodedata.combining(before) == _VIRAMA:
        return True
    if _SKINS[0] <= after <= _SKINS[1] or _JAMO[0] <= after <= _JAMO[1]:
        return True
    if not _FLAGS[0] <= after <= _FLAGS[1]:
        return False
    flags = 0  # two letters make a flag
    while place - flags > 0 and _FLAGS[0] <= text[place - flags - 1] <= _FLAGS[1]:
        flags += 1
    return flags % 2 == 1
