"""The paper's defects, re-typed: the logic that PAPER section 7 describes, in our own words and as small as it goes.

None of it is used anywhere. A regression test that passes against one of these tests nothing.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from tests.paper.shapes import REASONING, Edited, Judged, Row, Said, Script, Shown

# ---- 7.1 to 7.7: from an answer to the training set ----


class TagPen:
    """The format that the paper asks for."""

    marker = "<verdict>"

    def write(self, said: Said, reasoning: str = REASONING) -> str:
        lists = {word: ", ".join(f"Doc ({number})" for number, other in said if other == word) for word in _LISTS}
        return self._answer(reasoning, **{word: f"[{names}]" for word, names in lists.items()})

    def slovenly(self, numbers: Sequence[int]) -> Mapping[str, str]:
        forms = {
            "in one bracket": f"[Doc ({', '.join(map(str, numbers))})]",
            "without bracket": ", ".join(f"Doc {number}" for number in numbers),
            "without blank": ", ".join(f"Doc({number})" for number in numbers),
            "bare list": f"[{', '.join(map(str, numbers))}]",
        }
        return {name: self._answer(REASONING, better=text, worse="[]") for name, text in forms.items()}

    def in_passing(self, number: int) -> Mapping[str, str]:
        return {"after": self._answer(REASONING, better=f"[] (Doc ({number}) was considered but rejected)", worse="[]")}

    @staticmethod
    def _answer(reasoning: str, better: str, worse: str) -> str:
        lists = f"<better>{better}</better><worse>{worse}</worse>"
        return f"<thinking>{reasoning}</thinking><preference>-</preference><verdict>{lists}</verdict>"


_LISTS = ("better", "worse")


def between(text: str, opening: str, closing: str) -> str:
    inner, found, _ = text.split(opening)[1].partition(closing)
    if not found:
        raise ValueError(closing)
    return inner


def docs_in(text: str | None, word: str) -> list[int]:
    """7.1 and 7.2: any exception is an empty list, and only one spelling counts, wherever it stands."""
    try:
        listed = between(between(text, "<verdict>", "</verdict>"), f"<{word}>", f"</{word}>")  # type: ignore[arg-type]
        return [int(number) for number in re.findall(r"Doc \((\d+)\)", listed)]
    except Exception:
        return []


@dataclass
class Original:
    """The released pipeline. threshold: 8, where the paper says 7 (7.6)."""

    threshold: int = 8
    which: Mapping[str, Sequence[str]] = field(default_factory=lambda: {"better": ("better",), "both": _LISTS})

    def judged(self, row: Row, script: Script) -> Judged:
        text = script(TagPen()).text
        found = {number for word in _LISTS for number in docs_in(text, word)}
        states = ["relevant" if n in found else "not_relevant" for n in range(1, len(row.negatives) + 1)]
        return Judged(states, escalated=bool(found))

    def order(self, row: Row) -> list[int]:
        """Which negative stands where in the prompt."""
        return list(range(len(row.negatives)))

    def relabelled(self, rows: Mapping[str, tuple[Row, Script]]) -> Sequence[tuple[str, Edited]]:
        edited = [(query_id, self.edit(row, script, "both")) for query_id, (row, script) in rows.items()]
        return [(query_id, row) for query_id, row in edited if row is not None]

    def edit(self, row: Row, script: Script, what: str) -> Edited | None:
        """7.3 to 7.6 and 7.9: positions, copies, order, the cut, and names that mean nothing."""
        text = script(TagPen()).text
        ids = [number - 1 for word in self.which.get(what, ()) for number in docs_in(text, word)]
        if len(ids) > self.threshold:
            return None
        positives = [text for _, text in row.positives]
        stored = [text for _, text in row.negatives]
        prompted = [stored[place] for place in self.order(row)]
        gone = {prompted[position] for position in ids}
        positives += [stored[position] for position in ids]
        return Edited(positives, [text for text in stored if text not in gone])


class Counting7(Original):
    """7.6, its other half: with the paper's threshold, copies and repetitions are counted all the same."""

    def __init__(self) -> None:
        super().__init__(threshold=7)


class Sampling(Original):
    """7.5: the batch variant shuffles what is shown, promotes by one order and removes by the other."""

    def order(self, row: Row) -> list[int]:
        return super().order(row)[::-1]


class Assembling(Original):
    """7.7: stage 2's rows, then every row of stage 1 as it was, whether it is there already or was dropped."""

    def relabelled(self, rows: Mapping[str, tuple[Row, Script]]) -> Sequence[tuple[str, Edited]]:
        forwarded = {query_id: pair for query_id, pair in rows.items() if self.judged(*pair).escalated}
        originals = [
            (query_id, Edited([text for _, text in row.positives], [text for _, text in row.negatives]))
            for query_id, (row, _) in rows.items()
        ]
        return [*super().relabelled(forwarded), *originals]


# ---- 7.8 to 7.11: what is judged, by which rule, and what is shown ----


def is_skipped(path: str, dataset: str) -> bool:
    """7.8: the name of a dataset is looked for in a path."""
    del dataset
    return "arguana" in path


def relabel_by(what: str, row: Row, script: Script) -> Edited | None:
    """7.9: an unknown filter finds nothing, so nothing is ever relabelled."""
    return Original().edit(row, script, what)


_TEMPLATES = {"gpt-4o": "Compare. Better or equal: …", "gpt-4o-mini": "Compare. Strictly better: …"}


def words_of(version: str) -> str:
    """7.10: an unknown version is the first one."""
    return _TEMPLATES.get(version, _TEMPLATES["gpt-4o"])


def show(row: Row) -> Shown:
    """7.11: no titles, one label for all positives, no limit, texts pasted as they are."""
    positives = "\n\n".join(f"P(0): {text}" for _, text in row.positives)
    passages = "\n\n".join(f"Doc ({number}): {text}" for number, (_, text) in enumerate(row.negatives, start=1))
    prompt = f"<question>{row.query}</question>\n<truth>\n{positives}\n</truth>\n<documents>\n{passages}\n</documents>"
    read = re.split(r"^Doc \((\d+)\): ", prompt, flags=re.M)[1:]
    truths = re.split(r"^P\(0\): ", prompt.partition("\n</truth>")[0], flags=re.M)[1:]
    texts = [text.removesuffix("\n\n").removesuffix("\n</documents>") for text in read[1::2]]
    return Shown(prompt, [text.removesuffix("\n\n") for text in truths], texts, read[::2])
