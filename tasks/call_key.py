"""What decides an answer, hashed: equal ids are the same call, in whatever dataset, part or run it is made."""

from collections.abc import Sequence
from functools import cache

from tasks.asking import JudgeConfig, Passage, Question
from tasks.hashing import combine_hashes, hash_text
from tasks.prompting import prompt_digest

_WRITES = frozenset({"listwise", "snippet"})  # protocols whose answer is a text, not one token


def call_key(config: JudgeConfig, question: Question) -> str:
    """Hash what decides an answer besides the texts: judge, prompt, definition and lengths.

    Not thresholds, votes or batches, which only decide what is made of an answer; and not the dataset's name.
    """
    fields = [
        config.protocol,
        config.asked,
        question.prompt,
        _digest(question.prompt),
        hash_text(question.definition),
        str(config.query_chars),
        str(config.positive_chars),
        str(config.passage_chars),
        str(config.max_positives),
        str(config.top),
    ]
    if config.protocol in _WRITES:
        fields += [str(config.max_output_tokens), str(config.reasoning)]
    return combine_hashes(fields)


def name_call(config: JudgeConfig, question: Question, passages: Sequence[Passage], attempt: int, seed: int) -> str:
    """Give the `call_id` of one attempt at `passages`, in the order shown and in the order of that seed.

    Texts go in by their own hash and by what is shown of them: a passage is shown whole, and as its snippet.
    """
    shown = [part for passage in passages for part in (passage.hash, hash_text(passage.text))]
    shown += [hash_text(text) for text in (question.query, *question.positives)]
    question_hashes = [question.query_hash, question.positives_hash]
    return combine_hashes([call_key(config, question), *question_hashes, *shown, str(attempt), str(seed)])


@cache
def _digest(name: str) -> str:
    return prompt_digest(name)
