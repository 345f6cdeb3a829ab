"""Faults of the request: when equal errors mean that every request would fail, and which setting to change then."""

import re

from infra.engines.specs import OpenAISpec

_FIRST = 8  # equal faults in a row, before anything was answered
_LATER = 32  # and after something was: of a mixture in which half of the requests fail, one run in 2**32 is so long
_MAY_PASS = 2  # times as many, where another try may help
_ASKED_AGAIN = 4  # times that a text which had a fault while others were answered may be asked about again
_FORBIDDEN, _OF_THE_REQUEST = "403", frozenset({"400", "404", "422"})
_LONGEST = 200  # characters of two faults that are compared

_REFUSES = re.compile(
    r"unsupported|not (?:be )?(?:support|permit|allow|enabl|availabl|implement)|unknown|unrecogni[sz]ed|unexpected"
    r"|extra_forbidden|extra inputs|must be|should be|less than|at most|out of range|between|invalid|exceed",
    re.I,
)
_FIELD = re.compile(
    r"\b(?:max_completion_tokens|max_tokens|max_output_tokens|seed|temperature|(?:top_)?logprobs|response_format"
    r"|json_schema|guided_json)\b",
    re.I,
)
_MOST_TOP = 20  # log-probabilities that are asked for at most
_LISTWISE = "set `protocol: listwise` in the tier's `judge`"
_OTHER_LIMIT = {"max_completion_tokens": "max_tokens", "max_tokens": "max_completion_tokens"}
_LOOSER = {
    "json_schema": "set `structured: json_object` or `structured: none`",
    "json_object": "set `structured: none`",
}
# What stands in a reply's kind and words, in this order, and what to change then. First, whatever is asked for:
_OF_ACCESS = tuple(
    (re.compile(pattern), advice)
    for pattern, advice in (
        (r"text/html", "check `base_url`: it should be the address of the interface, and not that of a page"),
        (r"^401", "check the key in the variable {key}"),
        (r"^(402|429)", "the account has nothing left: add to it, or run again once its limit is renewed"),
        (r"^403", "check that the key in the variable {key} may use this model at this address"),
        (r"^(3\d\d|404|405)|model\b.{0,80}(not found|not exist)", "check `base_url` (most end in /v1) and `model`"),
    )
)
_OF_CHATS = tuple(
    (re.compile(pattern), advice)
    for pattern, advice in (
        (r"^no_logprobs", _LISTWISE),
        (r"max_\w*tokens.{0,80}(>=|at least|minimum|below|greater than)",
         f"the endpoint gives no answer of a single token: {_LISTWISE}"),
        (r"\bmax_(completion_)?tokens\b", "set `max_tokens_field: {other_limit}` in the tier's `engine`"),
        (r"\bseed\b", "set `seed: null` in the tier's `engine`"),
        (r"\btemperature\b", "set `temperature: null` in the tier's `engine`"),
        (r"top_logprobs", "{top}"),
        (r"logprobs", f"the endpoint gives no log-probabilities for this model: {_LISTWISE}"),
        (r"response_format|json_schema|guided_json", "{looser} in the tier's `engine`"),
    )
)  # fmt: skip
OTHERWISE = "check the model's name, base_url, the key and its quota, and the fields that the endpoint knows"


def names_a_field(words: str) -> bool:
    """Tell whether an endpoint's words refuse a field that every request has.

    >>> names_a_field("extra_forbidden: max_completion_tokens"), names_a_field("this text is odd")
    (True, False)
    """
    about_length = "context" in words.lower()  # how much room is left for an answer depends on the prompt
    return bool(_REFUSES.search(words) and _FIELD.search(words)) and not about_length


class EqualFaults:
    """Counts the replies with equal faults that came one after the other, with no answer between them.

    answers: how many requests were answered so far.
    """

    def __init__(self) -> None:
        """Start with nothing heard."""
        self.answers = 0
        self._fault = ""
        self._count = 0
        self._scattered = 0  # faults that came between answers: of these texts, and not of every request

    def note_answer(self) -> None:
        """Note that a request was answered; the count of faults begins again."""
        self._scattered += self._count if self.answers else 0
        self.answers += 1
        self._count = 0

    def may_be_of_the_text(self, kind: str) -> bool:
        """Tell whether a fault that seems to concern every request may be of this text alone.

        A firewall or a moderator forbids single texts. What others were answered with is not refused to every request.
        """
        return kind == _FORBIDDEN or (kind in _OF_THE_REQUEST and self.answers > 0)

    def add(self, kind: str, words: str, *, passing: bool = False) -> bool:
        """Count a fault; returns whether there were enough equal ones to say that every request would fail."""
        fault = f"{kind} {_without_numbers(words)}"
        if fault != self._fault:
            self._fault, self._count = fault, 0
        self._count += 1
        needed = (_LATER if self.answers else _FIRST) * (_MAY_PASS if passing else 1)
        # Texts with a fault of their own are asked about again one after the other, with no answer between them.
        return self._count >= needed + _ASKED_AGAIN * self._scattered


def remedy(kind: str, words: str, spec: OpenAISpec) -> str:
    """Return what to change after a fault of every request; `kind` and `words` are those of the endpoint's reply.

    >>> remedy("422", "extra_forbidden: seed", OpenAISpec(model="m"))
    "set `seed: null` in the tier's `engine`"
    """
    said = f"{kind} {words.lower()}"
    if kind in ("400", "422") and any(re.search(rf"\b{re.escape(name.lower())}\b", said) for name in spec.extra_body):
        return "correct `extra_body` in the tier's `engine`"
    of_access = remedy_of_access(kind, words, spec.api_key_env)
    if of_access is not None:
        return of_access
    advice = next((advice for pattern, advice in _OF_CHATS if pattern.search(said)), OTHERWISE)
    return advice.format(
        other_limit=_OTHER_LIMIT[spec.max_tokens_field],
        top=_fewer_logprobs(words),
        looser=_LOOSER.get(spec.structured, "correct `extra_body`"),
    )


def remedy_of_access(kind: str, words: str, key: str) -> str | None:
    """Return what to change after a fault of address, key, account or model; None where it is another fault.

    >>> remedy_of_access("401", "wrong", "OPENAI_API_KEY")
    'check the key in the variable OPENAI_API_KEY'
    """
    said = f"{kind} {words.lower()}"
    advice = next((advice for pattern, advice in _OF_ACCESS if pattern.search(said)), None)
    return None if advice is None else advice.format(key=key)


def _fewer_logprobs(words: str) -> str:
    """Return the setting with as many log-probabilities as an endpoint says that it gives at most."""
    numbers = [int(number) for number in re.findall(r"\b\d{1,2}\b", words)]
    most = min((number for number in numbers if 1 < number < _MOST_TOP), default=None)
    return f"set `top: {most}` in the tier's `judge`" if most else _LISTWISE


def _without_numbers(words: str) -> str:
    """Return an endpoint's words without what differs from request to request: numbers and ids.

    >>> _without_numbers("Request req_01ab: 9 tokens"), _without_numbers("Request req_77cd: 12 tokens")
    ('request #: # tokens', 'request #: # tokens')
    """
    return re.sub(r"\w*\d\w*", "#", words.lower())[:_LONGEST]
