"""Ask for one passage's grade of relevance, 0 to 3, and read the log-probabilities of the four digits.

The scale is that of TREC's assessors. Both the expected grade and P(grade at least `relevant_grade`) are kept, so what
counts as relevant can be moved later without a new call.
"""

from collections.abc import Mapping, Sequence

from tasks.asking import Call, JudgeConfig, Question, Reading
from tasks.pointwise import Wanted, ask_each, read_first_token
from tasks.protocols import Answer


def make_calls(config: JudgeConfig, questions: Sequence[Question], attempt: int, seed: int) -> list[Call]:
    """Make one call per passage; `seed` orders the positives."""
    return ask_each(config, questions, attempt, seed, Wanted(max_tokens=1, top=config.top))


def read_answer(config: JudgeConfig, call: Call, answer: Answer) -> dict[str, Reading]:
    """Read the expected grade, and as score the probability of a grade that counts as relevant.

    `{"3": log 0.5, " 2": log 0.25, "0": log 0.25}` is grade 2.0, and score 0.75 from grade 2 on.
    """
    return read_first_token(config, call, answer, lambda shares: _measure(shares, config.relevant_grade))


def _measure(shares: Mapping[str, float], relevant_grade: int) -> Reading:
    grade = sum(int(label) * share for label, share in shares.items())
    score = sum(share for label, share in shares.items() if int(label) >= relevant_grade)
    return Reading(score=min(score, 1.0), grade=grade)
