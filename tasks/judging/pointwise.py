"""Ask about one passage at a time and read the first token's log-probabilities: protocols `yes_no`, `graded` (§3.1).

The paper generates about 1,000 tokens of reasoning for a query and parses the text. These protocols generate one token
for a pair and read a probability. The score is stored, so thresholds can change without new calls. `graded` asks for a
grade from 0 to 3, the scale of TREC, and stores the expected grade and P(grade >= `relevant_grade`).
"""

import math
import unicodedata
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tasks.judging.calls import Call, Passage, Question, Reading, name_call, unread
from tasks.judging.config import JudgeConfig
from tasks.judging.json_answer import Pairs, final_object
from tasks.prompts.prompt import load_prompt
from tasks.protocols import Answer
from tasks.texts import combine_hashes, hash_text

# One generated token always ends by "length". For protocols that read its log-probabilities this is a whole answer.
FIRST_TOKEN = frozenset({"stop", "length"})
WHOLE_TEXT = frozenset({"stop"})
UNAVAILABLE = "unavailable"
_NAMED = frozenset({"length", "too_long", "refused"})
# Spaces, the signs that tokenizers write for them, and quotes and full stops.
_AROUND = (
    " \t\r\n\u0120\u0121\u010a\u2581\"'`*_.,:;!()[]\u3002\uff0c\u3001\u201c\u201d\u2018\u2019\u00ab\u00bb\u300c\u300d"
)
_HIGHEST = 0.01  # a log-probability is at most 0, apart from rounding


@dataclass(frozen=True)
class Wanted:
    """What is requested from the engine."""

    max_tokens: int
    top: int = 0
    schema: Mapping[str, Any] | None = None


def ask_each(config: JudgeConfig, questions: Sequence[Question], attempt: int, seed: int, wanted: Wanted) -> list[Call]:
    """Make one call per passage. The calls of a question are adjacent, as they share all text before the candidate."""
    return [
        _call(config, question, passage, (attempt, seed), wanted)
        for question in questions
        for passage in question.passages
    ]


def _call(config: JudgeConfig, question: Question, passage: Passage, nth: tuple[int, int], wanted: Wanted) -> Call:
    attempt, seed = nth
    seed = seed if len(question.positives) > 1 else 0  # one positive has one order: another vote would be the same call
    prompt = load_prompt(question.prompt)
    content = prompt.render(
        definition=question.definition,
        query=question.query,
        positives=order_positives(question, seed),
        candidates=[("", passage.text)],
        ask=question_of(question.prompt, attempt),
    )
    return Call(
        call_id=name_call(config, question, [passage], attempt, seed),
        chat=prompt.chat(content),
        question=question,
        ids={"": passage.key},
        attempt=attempt,
        max_tokens=wanted.max_tokens,
        top=wanted.top,
        schema=wanted.schema,
        order_seed=seed,
    )


def question_of(prompt: str, attempt: int) -> str:
    """Return the question of one attempt; if the prompt has fewer questions, its last one."""
    questions = load_prompt(prompt).questions
    return questions[min(attempt, len(questions)) - 1]


def order_positives(question: Question, seed: int) -> tuple[str, ...]:
    """Return the positives in an order drawn by the seed; seed 0 keeps their order, which is that of their hashes."""
    if seed == 0:
        return question.positives
    return tuple(
        sorted(question.positives, key=lambda text: combine_hashes([str(seed), question.query_hash, hash_text(text)]))
    )


def failure_of(answer: Answer, finished: frozenset[str]) -> str | None:
    """Return why an answer cannot be read, by its finish reason; None if it can.

    `length`, `too_long`, `refused`, `error`, or `unavailable` (the engine cannot answer now and may later).
    """
    if answer.finish_reason in finished:
        return None
    if answer.finish_reason.startswith(UNAVAILABLE):
        return UNAVAILABLE
    return answer.finish_reason if answer.finish_reason in _NAMED else "error"


def read_object(answer: Answer) -> Pairs | str:
    """Return the JSON object of an answer, or the name of a failure: the engine's, `empty` or `no_json`."""
    failure = failure_of(answer, WHOLE_TEXT)
    if failure:
        return failure
    if not (answer.text or "").strip():
        return "empty"
    found = final_object(answer.text)
    return "no_json" if found is None else found


def read_first_token(
    config: JudgeConfig, call: Call, answer: Answer, measure: Callable[[Mapping[str, float]], Reading]
) -> dict[str, Reading]:
    """Compute the share of each label from the log-probabilities of the first token, and measure the shares.

    Failures: the engine's reason; `no_logprobs` where there are no usable log-probabilities; `neither` where the labels
    together have less than `min_mass`.
    """
    failure = failure_of(answer, FIRST_TOKEN)
    if failure:
        return unread(call, failure)
    if not answer.logprobs or not all(value <= _HIGHEST for value in answer.logprobs.values()):  # NaN fails this too
        return unread(call, "no_logprobs")
    spellings = load_prompt(call.question.prompt).spellings
    masses = _masses(answer.logprobs, spellings)
    total = math.fsum(masses.values())
    if total <= 0 or total < config.min_mass:
        return unread(call, "neither")
    reading = measure({label: mass / total for label, mass in masses.items()})
    return {passage: reading for passage in call.ids.values()}


def _masses(logprobs: Mapping[str, float], spellings: Mapping[str, frozenset[str]]) -> dict[str, float]:
    """Add up the probability of each label: of its spellings, and of tokens that differ from one in form only."""
    exact = {spelling: label for label in sorted(spellings) for spelling in spellings[label]}
    plain: dict[str, set[str]] = defaultdict(set)
    for spelling, label in exact.items():
        plain[plain_token(spelling)].add(label)
    found: dict[str, list[float]] = {label: [] for label in sorted(spellings)}
    for token in sorted(logprobs):
        labels = {exact[token]} if token in exact else plain.get(plain_token(token), set())
        if len(labels) == 1:
            found[next(iter(labels))].append(math.exp(logprobs[token]))
    return {label: math.fsum(values) for label, values in found.items()}


def plain_token(token: str) -> str:
    """Return a token without what tokenizers and languages write in several ways.

    That is: spaces and the signs for them, case, full-width letters, digits of other scripts, and quotes and full stops
    around a word.

    >>> plain_token("\u2581Yes"), plain_token("\u0120NO"), plain_token("\uff2e\uff2f\u3002"), plain_token("\u0662")
    ('yes', 'no', 'no', '2')
    """
    text = unicodedata.normalize("NFKC", token).casefold()
    letters = (str(digit) if (digit := unicodedata.decimal(letter, None)) is not None else letter for letter in text)
    return "".join(letters).strip(_AROUND)


def make_calls(config: JudgeConfig, questions: Sequence[Question], attempt: int, seed: int) -> list[Call]:
    """Make one call per passage; `seed` orders the positives."""
    return ask_each(config, questions, attempt, seed, Wanted(max_tokens=1, top=config.top))


def read_yes_no(config: JudgeConfig, call: Call, answer: Answer) -> dict[str, Reading]:
    """Read P(relevant) = mass of the Yes spellings / (mass of Yes + mass of No), in any form of a token.

    `{"Yes": log 0.6, " no": log 0.2, "The": log 0.2}` is 0.75. The text of the answer is not read.
    """
    return read_first_token(config, call, answer, lambda shares: Reading(score=shares["yes"]))


def read_grade(config: JudgeConfig, call: Call, answer: Answer) -> dict[str, Reading]:
    """Read the expected grade, and as score the probability of the grades that count as relevant.

    `{"3": log 0.5, " 2": log 0.25, "0": log 0.25}` is grade 2.0; its score is 0.75 if grades 2 and 3 are relevant.
    """
    return read_first_token(config, call, answer, lambda shares: _measure(shares, config.relevant_grade))


def _measure(shares: Mapping[str, float], relevant_grade: int) -> Reading:
    grade = sum(int(label) * share for label, share in shares.items())
    score = sum(share for label, share in shares.items() if int(label) >= relevant_grade)
    return Reading(score=min(score, 1.0), grade=grade)
