"""Split docstrings into a summary line and prose, for the demo corpus."""

import inspect
import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

_ROLE = re.compile(r":[a-zA-Z][\w:+-]*:`~?([^`<]*?)(?:\s*<[^`]*>)?`")
_LINK = re.compile(r"`([^`<]+?)\s*<[^`]*>`__?")
_LITERAL = re.compile(r"``(.+?)``|`([^`]*)`_*")
_STRONG = re.compile(r"\*\*(?=\S)([^*]+?)\*\*|(?<!\w)\*(\w+)\*(?!\w)")
_FOOTNOTE = re.compile(r"\s*\[(?:\d+|#\w*)\]_")
_SPACE = re.compile(r"\s+")
_UNDERLINE = re.compile(r"^\s*([-=~^])\1{2,}\s*$")
_DIRECTIVE = re.compile(r"^(\s*)\.\. +(?:([\w-]+)::(.*)|.*)$")
_EXAMPLE = re.compile(r"^(\s*)(?:Example|Example use|Usage|See also|References|Shape)s?\s*:{1,2}\s*$", re.IGNORECASE)
_ITEM = re.compile(r"^\s*(?:[-*+•] |\d+[.)] )")
_ARGUMENT = re.compile(r"^\s*\*{0,2}\w+(?:, \w+)*(?: \([^)]*\))?: \S")
_HEADING = re.compile(r"\s*[A-Z][\w ]{2,30}:")
_FIELD = re.compile(r"^([*\w][\w.*, {}\"']*?) : (\S.*)$")
_SENTENCE = re.compile(r"(?<=[.!?])(?<!e\.g\.)(?<!i\.e\.)(?<!vs\.)(?<!etc\.)\s+(?=[A-Z(`:\"'\d])")
_SIGNATURE = re.compile(r"^(?:\.\. [\w:]+:: )?[A-Za-z_][\w.]*\(")
_TABLE = re.compile(r"[┌│╞└─┆╡]|^\s*shape: \(|^\s*[=+|][-=+| ]{3,}")

# Sections and directives with code, formulas or the summaries of other objects.
_SKIPPED_SECTIONS = frozenset({"examples", "example", "see also", "references", "usage"})
_KEPT_DIRECTIVES = {"note": "Note", "warning": "Warning", "important": "Important", "tip": "Tip", "attention": "Note"}


@dataclass(frozen=True)
class Documentation:
    """The first sentence of a docstring and the prose after it, without markup."""

    summary: str
    body: str


def read_docstring(doc: str) -> Documentation | None:
    r"""Split a docstring into its summary line and the rest, without signature, code, tables and markup.

    >>> read_docstring("head(n)\n\nGet the first `n` rows.\n\nParameters\n----------\nn : int\n    How many.")
    Documentation(summary='Get the first n rows.', body='Parameters: n (int): How many.')
    """
    lines = _drop_signatures([line.rstrip() for line in inspect.cleandoc(doc).expandtabs(4).split("\n")])
    end = next((at for at, line in enumerate(lines) if not line), len(lines))
    first = lines[:end]
    if not first or first[0][0] in " .>-=*" or any(_UNDERLINE.match(line) or _ITEM.match(line) for line in first):
        return None
    sentences = _SENTENCE.split(_SPACE.sub(" ", " ".join(first)))
    lead = [" ".join(sentences[1:]), ""] if sentences[1:] else []
    units = list(_units(list(_prose([*lead, *lines[end:]]))))
    return Documentation(plain(sentences[0]), _SPACE.sub(" ", " ".join(units)).strip())


def plain(text: str) -> str:
    """Remove inline reStructuredText markup and join lines.

    >>> plain("See :func:`~torch.abs` and ``x``, `y`.")
    'See torch.abs and x, y.'
    """
    text = _ROLE.sub(r"\1", text)
    text = _LINK.sub(r"\1", text)
    text = _LITERAL.sub(lambda found: (found[1] or found[2] or "").lstrip("~"), text)
    text = _FOOTNOTE.sub("", _STRONG.sub(lambda found: found[1] or found[2], text))
    return _SPACE.sub(" ", text).strip()


def words(text: str) -> str:
    """Reduce a text to its words in lower case. Texts that differ only in spaces, case and punctuation become equal."""
    return " ".join(re.findall(r"\w+", text.casefold()))


def cut(text: str, max_chars: int) -> str:
    """Shorten a text to at most `max_chars` characters, after a whole sentence where possible, else after a word."""
    if len(text) <= max_chars:
        return text
    head = text[: max_chars + 1]
    ends = [found.start() for found in _SENTENCE.finditer(head)]
    if ends and ends[-1] >= max_chars // 2:
        return head[: ends[-1]].rstrip()
    return head[: max(head.rfind(" "), 1)].rstrip(" ,;:(")


def _drop_signatures(lines: list[str]) -> list[str]:
    """Drop the call signatures at the top of the docstrings of C functions."""
    at = 0
    while at < len(lines):
        if not lines[at]:
            at += 1
        elif (end := _signature_end(lines, at)) is not None:
            at = end
        else:
            break
    return lines[at:]


def _signature_end(lines: list[str], start: int) -> int | None:
    """Return the index of the line after the signature that starts at `start`; None if no signature starts there."""
    if not _SIGNATURE.match(lines[start]):
        return None
    depth = 0
    for at in range(start, len(lines)):
        for column, character in enumerate(lines[at]):
            depth += (character in "([{") - (character in ")]}")
            if depth == 0 and character == ")":
                rest = lines[at][column + 1 :].strip()
                return at + 1 if not rest or rest.startswith(("->", ":", "→")) else None
        if not lines[at]:
            return None
    return None


def _indent(line: str) -> int:
    return len(line) - len(line.lstrip())


def _prose(lines: list[str]) -> Iterator[str]:
    """Yield the lines that are prose: no doctests, code blocks, tables, formulas or sections of references."""
    skip_deeper: int | None = None  # skip while the lines are indented deeper than this
    skip_section = in_doctest = False
    for line, below in pairwise([*lines, ""]):
        if skip_deeper is not None and line and _indent(line) <= skip_deeper:
            skip_deeper = None
        if _UNDERLINE.match(below) and line.strip():
            skip_section = line.strip().lower() in _SKIPPED_SECTIONS
            in_doctest = False
            yield from () if skip_section else ("", line.strip() + ":", "")
            continue
        in_doctest = bool(line) and (in_doctest or line.lstrip().startswith((">>>", "...", "$ ")))
        if skip_section or in_doctest or skip_deeper is not None or _UNDERLINE.match(line) or _TABLE.search(line):
            continue
        if found := _EXAMPLE.match(line):
            skip_deeper = _indent(line)
        elif found := _DIRECTIVE.match(line):
            kept = _directive(found[2] or "", (found[3] or "").strip())
            skip_deeper = None if kept else _indent(line)
            yield from ("", found[1] + kept) if kept else ()
        elif line.endswith("::"):
            skip_deeper = _indent(line)
            yield line[:-1]
        else:
            yield line


def _directive(name: str, argument: str) -> str:
    """Return the text for the line of a directive; empty where the block of the directive is to be left out."""
    if name == "deprecated":
        return f"Deprecated since {argument}:" if argument else "Deprecated:"
    label = _KEPT_DIRECTIVES.get(name)
    return f"{label}: {argument}".rstrip() if label else ""


def _units(lines: list[str]) -> Iterator[str]:
    """Join the lines of each paragraph, list item and parameter. Headings without content are left out."""
    heading = ""
    unit: list[str] = []
    for line, below in pairwise([*lines, "", ""]):
        if not line.strip():
            continue
        unit.append(line)
        alone = len(unit) == 1 and _HEADING.fullmatch(line)
        starts = _ITEM.match(below) or _ARGUMENT.match(below) or _indent(below) < _indent(line)
        if below.strip() and not alone and not starts:
            continue
        text = _join(unit)
        unit = []
        if alone:
            heading = text
            continue
        yield f"{heading} {_ended(text)}" if heading else _ended(text)
        heading = ""


def _join(unit: list[str]) -> str:
    """Join the lines of a paragraph. A block that is indented deeper than the first line explains that line."""
    first = plain(unit[0])
    rest = plain(" ".join(unit[1:]))
    described = _ITEM.match(unit[0]) or _ARGUMENT.match(unit[0])
    if rest and _indent(unit[1]) > _indent(unit[0]) and not described:
        first = _FIELD.sub(r"\1 (\2)", first)
        first += "" if first.endswith((":", ".", ",")) else ":"
    return f"{first} {rest}" if rest else _FIELD.sub(r"\1 (\2)", first)


def _ended(text: str) -> str:
    return text if text.endswith((".", ":", ";", "!", "?", ",")) else text + "."
