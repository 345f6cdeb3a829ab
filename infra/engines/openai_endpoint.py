"""Answers by an OpenAI-compatible endpoint: many requests at a time, tried again where that may help.

The first requests go ahead, and the others wait until one of them was answered. So an endpoint that refuses a field, or
cannot do what is asked of it, is asked eight times and not once for every pair (`EqualFaults` counts).
"""

import asyncio
import functools
import logging
import os
import random
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from typing import Any
from urllib.parse import quote, urlsplit

import openai

from infra.engines.answers import UNAVAILABLE, Answer, EndpointError, Request
from infra.engines.kinds import refusal_of
from infra.engines.openai_requests import (
    BoundedClient,
    Reply,
    TooLarge,
    Trouble,
    estimate_tokens,
    read_completion,
    request_body,
    serialise,
)
from infra.engines.rate_limit import RateLimiter, Result, identify, run, slots, together
from infra.engines.refusals import OTHERWISE, EqualFaults, remedy, remedy_of_access
from infra.engines.specs import OpenAIAccess, OpenAISpec
from infra.key_rules import is_loopback
from infra.redact import hide_variable, redact

_LOG = logging.getLogger(__name__)
_FIRST_DELAY = 0.5  # seconds; doubled with each try
_LONGEST_DELAY = 30.0
_LONGEST_ASKED = 600.0  # an endpoint that asks for more (a day's limit is used up) is not waited for
_CONNECT_SECONDS = 10.0
_SHORTEST_SECRET = 8  # shorter ones are placeholders ("none", "EMPTY"), which may well stand in an answer
_NO_KEY = "none"
_HIDDEN = "[key]"
_AHEAD = 8  # requests that go ahead of the others
_WORDS = 240  # characters of an endpoint's words in an error
_READABLE = frozenset({"stop", "length"})  # answers that hold what was asked for
_NO_LOGPROBS = Trouble("no_logprobs", "the endpoint gives no log-probabilities")
_NOT_ASKED = Answer(finish_reason=f"{UNAVAILABLE}not asked: the endpoint refuses all requests")


class OpenAIEngine:
    """One endpoint and one model; `counts` holds retries and failures by reason."""

    def __init__(self, spec: OpenAISpec) -> None:
        """Read the key and prepare the client; nothing is sent yet.

        Raises:
            ValueError: the variable that should hold the key is not set, or the address is missing or no HTTP one.
        """
        self._spec = spec
        self._endpoint = Endpoint(spec, functools.partial(remedy, spec=spec))
        self._faults = EqualFaults()
        self._opened = asyncio.Event()
        self._refusal = ""

    @property
    def counts(self) -> Counter[str]:
        """Retries and failures so far, by reason: `retry_429`, `retry_timeout`, `failed_500`, `refused`, …."""
        return self._endpoint.counts

    def answer(self, requests: Sequence[Request]) -> Sequence[Answer]:
        """Answer requests in their order; one that cannot be answered gets its reason, and the others are not affected.

        Where the endpoint begins to refuse every request, the answers so far are returned, and every later call raises
        without asking.

        Raises:
            EndpointError: the endpoint refuses the key, the model or our way of asking.
            ConnectionError: the endpoint never answered, or none of the first requests after all tries.
        """
        self._raise_refusal()
        before = self._faults.answers
        answers = run(self._answer(requests))
        if self._faults.answers == before:
            self._raise_refusal()
        return answers

    def _raise_refusal(self) -> None:
        if self._refusal:
            raise EndpointError(self._refusal)

    def close(self) -> None:
        """Close the connections; the engine cannot be used afterwards."""
        run(self._endpoint.close())

    async def _answer(self, requests: Sequence[Request]) -> list[Answer]:
        heard = self._endpoint.heard
        self._opened = asyncio.Event()
        if self._faults.answers:
            self._opened.set()

        ahead: list[Answer] = []

        async def go_ahead() -> list[Answer]:
            ahead.extend(await together([self._one(request, heard) for request in requests[:_AHEAD]]))
            self._opened.set()
            return ahead

        async def follow() -> list[Answer]:
            await self._opened.wait()
            if len(requests) > _AHEAD and not self._faults.answers:
                self._check_available(ahead)
            return await together([self._one(request, heard) for request in requests[_AHEAD:]])

        answers = [answer for part in await together([go_ahead(), follow()]) for answer in part]
        _LOG.info("%s: %d requests answered; so far %s", self._endpoint.address, len(answers), dict(self.counts))
        return answers

    def _check_available(self, ahead: Sequence[Answer]) -> None:
        """Give up where the endpoint could not answer one of the first requests, after all tries of each.

        Raises:
            ConnectionError: it could not; the part is computed again later.
        """
        reasons = Counter(answer.finish_reason for answer in ahead if answer.finish_reason.startswith(UNAVAILABLE))
        if self._refusal or reasons.total() < len(ahead):
            return
        raise ConnectionError(
            f"{self._endpoint.address}: no answer to the first {len(ahead)} requests, after {self._spec.max_retries} "
            f"further tries of each ({reasons.most_common(1)[0][0]}; {self._endpoint.last_words}); run again later"
        )

    async def _one(self, request: Request, heard: int) -> Answer:
        body = request_body(self._spec, request)
        written = serialise(body)
        if isinstance(written, Trouble):
            return written.as_answer()
        tokens = estimate_tokens(request)
        async with self._endpoint.slots:
            if self._refusal:
                return _NOT_ASKED
            try:
                ask, read = functools.partial(self._ask, body), functools.partial(self._read, request)
                result = await self._endpoint.call(ask, read, tokens)
            except EndpointError as refusal:  # of every request; the answers so far are paid for and are kept
                self._refusal = self._refusal or str(refusal)
                return _NOT_ASKED
        if isinstance(result, Answer) and not result.prompt_tokens:
            # Without usage a budget would never be used up, so the usage is estimated, and the estimate is counted.
            self._endpoint.counts["no_usage"] += 1
            result = replace(result, prompt_tokens=tokens - request.max_tokens, output_tokens=request.max_tokens)
        if isinstance(result, Answer):
            self._endpoint.settle(tokens, result.prompt_tokens + result.output_tokens)
            return result
        if self._endpoint.heard == heard:
            raise ConnectionError(
                f"{self._endpoint.address}: no response to {self._spec.max_retries + 1} tries ({result}); "
                "check base_url, and that the server runs"
            )
        return result.as_answer()

    async def _ask(self, body: dict[str, Any]) -> Any:  # noqa: ANN401 - the client's raw response
        """Ask for one completion, unless the endpoint refused every request while this one waited for its next try."""
        if self._refusal:
            raise EndpointError(self._refusal)
        return await self._endpoint.complete(body)

    def _read(self, request: Request, reply: Reply) -> Answer | Trouble:
        """Read a reply, and make a fault fatal once so many equal ones came that every request would have it."""
        result = read_completion(reply)
        lacks = isinstance(result, Answer) and result.finish_reason in _READABLE and request.top and not result.logprobs
        fault = _NO_LOGPROBS if lacks else result
        if isinstance(fault, Answer):
            self._faults.note_answer()
            self._opened.set()
            return fault
        fault = weigh(self._faults, fault)
        return result if isinstance(result, Answer) and not fault.fatal else fault


def weigh(faults: EqualFaults, fault: Trouble) -> Trouble:
    """Return a fault as it counts for other requests: fatal once so many equal ones came that each would have it."""
    if faults.may_be_of_the_text(fault.kind):
        fault = replace(fault, fatal=False)
    if fault.concerns_all and faults.add(fault.kind, fault.text, passing=fault.passing):
        return replace(fault, fatal=True)
    return fault


class Endpoint:
    """A client with its key and its rate limit; every retry happens here."""

    def __init__(self, spec: OpenAIAccess, advise: Callable[[str, str], str] | None = None) -> None:
        """Read the key from the environment and build the client.

        advise: says what to change after a fault of every request, by its kind and words.

        Raises:
            ValueError: the variable that should hold the key is not set, the address is missing or no HTTP one, or the
                key may not be sent there (`refusal_of`).
        """
        self._spec = spec
        self._advise = advise or (lambda kind, words: remedy_of_access(kind, words, spec.api_key_env) or OTHERWISE)
        self.address = _address(spec)
        hide_variable(spec.api_key_env)
        self._key = _read_key(spec)
        self._client = _build_client(spec, self._key)
        identity = identify(spec.address, self._key)
        self._limiter = RateLimiter(identity, spec.requests_per_minute, spec.tokens_per_minute)
        self.slots = slots(identity, spec.concurrency)
        self.counts: Counter[str] = Counter()
        self.heard = 0  # responses of any kind
        self.last_words = ""  # of what failed

    @property
    def client(self) -> openai.AsyncOpenAI:
        """The vendor's client; it retries nothing and follows no redirection."""
        return self._client

    async def complete(self, body: dict[str, Any]) -> Any:  # noqa: ANN401 - the client's raw response
        """Ask for one chat completion."""
        named = {"model": body["model"], "messages": body["messages"]}
        rest = {name: value for name, value in body.items() if name not in named}
        return await self._client.chat.completions.with_raw_response.create(**named, extra_body=rest)

    async def embed(self, body: dict[str, Any]) -> Any:  # noqa: ANN401 - the client's raw response
        """Ask for the vectors of some texts."""
        named = {name: body[name] for name in ("model", "input", "encoding_format")}
        rest = {name: value for name, value in body.items() if name not in named}
        return await self._client.embeddings.with_raw_response.create(**named, extra_body=rest)

    async def call(
        self,
        ask: Callable[[], Awaitable[Any]],
        read: Callable[[Reply], Result | Trouble],
        tokens: int | None = None,
        *,
        retries: int | None = None,
        seconds: float | None = None,
    ) -> Result | Trouble:
        """Ask until there is a result, a trouble that does not pass, or no try left.

        tokens: what the request uses of the rate limit; None asks without waiting for it.

        Raises:
            EndpointError: the trouble is fatal to all requests.
        """
        left = self._spec.max_retries if retries is None else retries
        attempt = 0
        while True:
            if tokens is not None:
                await self._limiter.acquire(tokens)
            result = await self._send(ask, read, seconds or self._spec.timeout)
            if not isinstance(result, Trouble):
                return result
            self.last_words = result.text[:_WORDS]
            if result.fatal:
                self.counts[f"failed_{result.kind}"] += 1
                raise EndpointError(self._explain(result))
            if attempt >= left or not result.passing or (result.wait or 0.0) > _LONGEST_ASKED:
                self.counts[result.kind if result.kind in ("refused", "too_long") else f"failed_{result.kind}"] += 1
                return result
            self.counts[f"retry_{result.kind}"] += 1
            await self.back_off(attempt, result)
            attempt += 1

    async def back_off(self, attempt: int, trouble: Trouble) -> None:
        """Wait before the next try: at random up to twice as long each time, and at least as long as was asked for."""
        if trouble.wait:
            await self._limiter.block(trouble.wait)
        delay = random.uniform(0.0, min(_LONGEST_DELAY, _FIRST_DELAY * 2**attempt))
        await asyncio.sleep((trouble.wait or 0.0) + delay)

    def settle(self, estimated: int, used: int) -> None:
        """Correct what a request was estimated to use of the limit of tokens."""
        if used:
            self._limiter.settle(estimated, used)

    async def close(self) -> None:
        """Close the connections."""
        await self._client.close()

    async def _send(
        self, ask: Callable[[], Awaitable[Any]], read: Callable[[Reply], Result | Trouble], seconds: float
    ) -> Result | Trouble:
        """Send once. No exception of the client leaves this method, because its message may hold secrets."""
        try:
            async with asyncio.timeout(seconds):  # the client's own limit is per read: a trickle of bytes never ends
                response = (await ask()).http_response
        except TooLarge as error:
            self.heard += 1
            return Trouble("body", str(error))
        except (TimeoutError, openai.APITimeoutError):
            return Trouble("timeout", f"no response within {seconds:g} s", passing=True)
        except openai.APIStatusError as error:
            response = error.response
        except openai.APIConnectionError as error:
            return Trouble("connection", type(error.__cause__ or error).__name__, passing=True)
        self.heard += 1
        text = self._hide(response.content.decode("utf-8", errors="replace"))
        # An error's words are shown and kept; an answer stays as it came, but for the key.
        told = text if response.is_success else redact(text)
        return read(Reply(response.status_code, told, dict(response.headers)))

    def _hide(self, text: str) -> str:
        """Take the key out of a body, also where it stands percent-encoded or with JSON's escaped slashes."""
        if len(self._key) < _SHORTEST_SECRET:
            return text
        for form in (self._key, quote(self._key, safe=""), self._key.replace("/", "\\/")):
            text = text.replace(form, _HIDDEN)
        return text

    def _explain(self, trouble: Trouble) -> str:
        trouble = replace(trouble, text=trouble.text[:_WORDS])
        said = trouble.text if trouble.kind == _NO_LOGPROBS.kind else str(trouble)
        return (
            f"{self.address}: no request can succeed: {said} (model {self._spec.model!r}, key from "
            f"{self._spec.api_key_env}); {self._advise(trouble.kind, trouble.text)}"
        )


def _address(spec: OpenAIAccess) -> str:
    """Check the endpoint's address; one with secrets in it is refused, since specs and addresses are shown and kept."""
    if spec.base_url is None and spec.api_version is not None:
        raise ValueError("base_url: the Azure resource's address expected with api_version, got none")
    parts = urlsplit(spec.address)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("base_url: an address such as https://host/v1 expected; scheme or host is missing")
    if "@" in parts.netloc or parts.query:
        raise ValueError(f"base_url: no name, password or query expected in it; put the key into {spec.api_key_env}")
    if refusal := refusal_of(spec):
        raise ValueError(refusal)
    return parts.geturl()


def _read_key(spec: OpenAIAccess) -> str:
    key = os.environ.get(spec.api_key_env, "").strip()
    if key and not (key.isascii() and key.isprintable() and " " not in key):
        raise ValueError(f"api_key_env: the variable {spec.api_key_env} holds characters that no key can have")
    if key:
        return key
    if is_loopback(spec.address):
        return _NO_KEY
    raise ValueError(f"api_key_env: the variable {spec.api_key_env} should hold the endpoint's key and is not set")


def _build_client(spec: OpenAIAccess, key: str) -> openai.AsyncOpenAI:
    """Build the client. The spec alone decides where texts go and with what, and no variable of the vendor does."""
    timeout = openai.Timeout(spec.timeout, connect=min(_CONNECT_SECONDS, spec.timeout))
    transport = BoundedClient(
        timeout=timeout,
        follow_redirects=False,  # texts and key go to the host that was named, and to no other
        trust_env=not is_loopback(spec.address),  # a proxy cannot reach our loopback
    )
    client: openai.AsyncOpenAI
    if spec.api_version is not None:
        client = openai.AsyncAzureOpenAI(
            azure_endpoint=(spec.base_url or "").rstrip("/"),
            api_version=spec.api_version,
            api_key=key,
            max_retries=0,
            timeout=timeout,
            http_client=transport,
        )
    else:
        client = openai.AsyncOpenAI(
            api_key=key, base_url=spec.address, max_retries=0, timeout=timeout, http_client=transport
        )
    client.organization = client.project = None  # of OPENAI_ORG_ID and OPENAI_PROJECT_ID
    client._custom_headers = {}
    return client
