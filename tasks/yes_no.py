"""Ask whether one passage is relevant too, Yes or No, and read the log-probabilities of the two (paper §3.1).

Where the paper spends about 1,000 output tokens on a query's chain of thought and parses prose, this spends one token a
pair and reads a probability: the score is kept, so thresholds move later without a new call.
"""

from collections.abc import Sequence

from tasks.asking import Call, JudgeConfig, Question, Reading
from tasks.pointwise import Wanted, ask_each, read_first_token
from tasks.protocols import Answer


def make_calls(config: JudgeConfig, questions: Sequence[Question], attempt: int, seed: int) -> list[Call]:
    """Make one call per passage; `seed` orders the positives."""
    return ask_each(config, questions, attempt, seed, Wanted(max_tokens=1, top=config.top))


def read_answer(config: JudgeConfig, call: Call, answer: Answer) -> dict[str, Reading]:
    """Read P(relevant) = mass of the Yes spellings / (mass of Yes + mass of No).

    `{"Yes": log 0.6, " no": log 0.2, "The": log 0.2}` is 0.75. The text of the answer is never looked at.
    """
    return read_first_token(config, call, answer, lambda shares: Reading(score=shares["yes"]))
