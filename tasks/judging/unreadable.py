"""Notice early that no answer of a judge can be read, and say why and what to change.

One unreadable answer is a fault of its pair: the pair is asked about again and then stays `unparsed`. If not one of the
first answers of a part can be read, the judge is set up wrongly. Then the part fails after one batch, so that it is not
asked and paid for every pair, and does not count as computed.
"""

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from tasks.judging.calls import Call, Reading
from tasks.judging.config import JudgeConfig
from tasks.protocols import Answer

_ANSWERS = 8  # unreadable ones for one reason; fewer prove nothing
_ANSWERS_OF_SEVERAL = 32  # the same for several reasons
_QUERIES = 3  # that the answers are about: one odd query must not stop a judge
_SHOWN = 80  # characters of an answer in the message
_QUOTE = 8  # characters of a text that make a quotation
_OF_THE_PAIR = frozenset({"refused", "too_long", "unavailable"})
_LISTWISE = "set `protocol: listwise` in the tier's `judge`"
_FORM = "set `structured: json_schema` in the tier's `engine`, or take a model that keeps to the form asked for"
_LENGTHS = "lower `passage_chars`, `positive_chars` or `per_call` in its `judge`"
# By reason: what the answers lack, and what to change.
_REASONS: Mapping[str, tuple[str, str]] = {
    "no_logprobs": ("the engine gives no log-probabilities", _LISTWISE),
    "neither": ("the first token is none of the labels", f"{_LISTWISE}, or add its spellings to a prompt of your own"),
    "no_json": ("no JSON object ends the answer", _FORM),
    "empty": ("the answer is empty", "raise `max_output_tokens` in the tier's `judge`, or take another model"),
    "length": ("the answer has no end", "raise `max_output_tokens` in the tier's `judge`, or set `reasoning: false`"),
    "too_long": ("the prompt is too long", f"raise `max_model_len` in the tier's `engine`, or {_LENGTHS}"),
    "error": ("the engine cannot answer", "correct the tier's `engine`"),
}
_OTHER_FORM = ("the answer has another form than asked for", _FORM)


class UnreadableAnswers(ValueError):
    """Not one answer of the judge could be read; another try, or another part, would end the same way."""

    of_every_part = True  # the other parts of the stage are not begun


@dataclass
class FirstAnswers:
    """The answers of one part up to the first that can be read.

    any_read: whether there was one, among new or remembered answers; nothing is counted afterwards.
    failures: unreadable answers by reason. queries: hashes of the queries that they are about.
    """

    config: JudgeConfig
    any_read: bool = False
    failures: Counter[str] = field(default_factory=Counter)
    queries: set[str] = field(default_factory=set)
    example: tuple[Call, Answer] | None = None

    def add(self, call: Call, answer: Answer, readings: Mapping[str, Reading]) -> None:
        """Count an answer, unless an earlier one could be read."""
        reasons = Counter(reading.failure for reading in readings.values())
        if self.any_read or None in reasons:
            self.any_read = True
            return
        reason = str(reasons.most_common(1)[0][0])
        self.failures[reason] += 1
        self.queries.add(call.question.query_hash)
        if self.example is None or reason not in _OF_THE_PAIR:
            self.example = (call, answer)

    def check(self, *, whole_part: bool = False) -> None:
        """Raise an error if enough answers came and none of them could be read.

        whole_part: the part has ended. Only then do prompts count that are too long: the longest ones are asked first.

        Raises:
            UnreadableAnswers: no answer could be read.
        """
        counted = Counter({reason: n for reason, n in self.failures.items() if reason not in _OF_THE_PAIR})
        if whole_part and not counted:
            counted = Counter({reason: n for reason, n in self.failures.items() if reason == "too_long"})
        needed = _ANSWERS if len(counted) == 1 else _ANSWERS_OF_SEVERAL
        if self.any_read or counted.total() < needed or len(self.queries) < _QUERIES:
            return
        reason, number = counted.most_common(1)[0]
        meaning, advice = _REASONS.get(reason, _OTHER_FORM)
        raise UnreadableAnswers(
            f"no answer could be read: {meaning} (`{reason}`, {number} of {counted.total()} answers"
            f"{self._example()}); {advice}"
        )

    def _example(self) -> str:
        if self.example is None:
            return ""
        call, answer = self.example
        if answer.finish_reason.startswith("error"):
            return f"; {_printable(answer.finish_reason)}"
        question = call.question
        shown = [question.query, *question.positives, *(passage.text for passage in question.passages)]
        excerpt = _without_quotes(_printable(answer.text or ""), shown)
        return f"; one begins: {excerpt}" if excerpt else ""


def _printable(text: str) -> str:
    """Return the beginning of a text in one line, without characters that a terminal would obey."""
    line = " ".join(text[: 4 * _SHOWN].split())
    return "".join(letter for letter in line if letter.isprintable())[:_SHOWN]


def _without_quotes(excerpt: str, texts: list[str]) -> str:
    """Hide what an excerpt quotes of the texts: the message is kept, and a purge of a text would not find it there.

    >>> _without_quotes("The passage says: bread is baked dough.", ["Plain bread is baked dough."])
    'The passage says:[…]'
    """
    known = " ".join("\n".join(texts).split())
    hidden = {
        place
        for start in range(len(excerpt))
        if excerpt[start : start + _QUOTE] in known and len(excerpt) >= start + _QUOTE
        for place in range(start, start + _QUOTE)
    }
    short = [" ".join(text.split()) for text in texts if len(text) < _QUOTE]
    kept = "".join("\0" if place in hidden else letter for place, letter in enumerate(excerpt))
    for text in filter(None, short):
        kept = kept.replace(text, "\0")
    return re.sub("\0+", "[…]", kept)
