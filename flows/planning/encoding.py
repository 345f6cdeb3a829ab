"""Estimates what encoding by endpoints would cost: texts, tokens, hours, money."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import polars as pl

from flows.config.prices import Prices
from flows.method.setup import Setup
from flows.planning.expected_pairs import Basis, NotKnown, Prospects
from flows.stage_names import encode_stages
from flows.stages import ENCODE_PASSAGES, ENCODE_QUERIES
from infra.engines.specs import OpenAIEmbeddingsSpec
from infra.execution.usage_meter import Usage
from infra.ledger.vectors import Role, Vectors
from infra.stages import part_keys
from infra.stages.found_parts import read_manifests
from infra.stages.runner import StageRun
from infra.storage.artifacts import newest_attempts
from infra.storage.store import Store

CHARACTERS_PER_TOKEN = 4
_LOOKED_UP = 20_000  # texts whose vectors are read at a time
_MOST_READ = 500  # earlier parts whose speed and tokens are read
_HOUR = 3600.0
_ROLES: tuple[Role, Role] = ("passage", "query")  # in the order of `encode_stages`


@dataclass(frozen=True)
class EncoderPlan:
    """What one endpoint would be asked to encode, and its cost; None where it is not known.

    encoder: its place in the settings. texts: distinct ones. known: of them, those whose vectors are remembered or in
    finished parts. Requests, tokens, hours and money are those of the other texts.
    """

    encoder: str
    basis: Basis
    texts: int | None = None
    known: int | None = None
    requests: int | None = None
    prompt_tokens: int | None = None
    output_tokens: int | None = 0
    hours: float | None = None
    money: float | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Open:
    """Texts of which no vector is known: how many of all there are, and how many characters are sent."""

    texts: int
    known: int
    characters: int


def plan_encoders(prospects: Prospects, prices: Prices) -> tuple[EncoderPlan, ...]:
    """Plan every encoder that is an endpoint, in the order of the settings."""
    return tuple(_plan(prospects, prices, place, spec) for place, spec in _endpoints(prospects.setup).items())


def scale_up(
    setup: Setup, prices: Prices, stages: Mapping[str, StageRun], totals: Mapping[Role, int]
) -> tuple[EncoderPlan, ...]:
    """Estimate from a finished preview what encoding the whole would cost. totals: texts of the whole, by role.

    An encoder that the preview did not ask, because no query had to be mined, is left out.
    """
    asked = [
        (place, spec, [stages[name] for name in encode_stages(place) if name in stages])
        for place, spec in _endpoints(setup).items()
    ]
    return tuple(
        _scale_up(prices, place, spec, runs, totals) for place, spec, runs in asked if len(runs) == len(_ROLES)
    )


def _scale_up(
    prices: Prices, place: str, spec: OpenAIEmbeddingsSpec, runs: Sequence[StageRun], totals: Mapping[Role, int]
) -> EncoderPlan:
    texts = known = requests = tokens = 0
    measured = True
    for role, run in zip(_ROLES, runs, strict=True):
        facts = [manifest.stats.get("facts", {}) for manifest in run.manifests]
        encoded, read = (sum(fact.get(name, 0) for fact in facts) for name in ("encoded", "prompt_tokens"))
        here = min(run.rows, totals[role])
        left = totals[role] - here
        measured &= bool(encoded) or not left
        texts, known, requests = texts + totals[role], known + here, requests + math.ceil(left / spec.batch_size)
        tokens += round(left * read / max(1, encoded))
    plan = EncoderPlan(place, "estimated", texts, known, requests)
    if not measured:
        return replace(plan, notes=("tokens: unknown, because the preview's vectors were all remembered",))
    price = prices.of(spec)
    money = None if price is None else price.of(Usage(requests, tokens))
    unpriced = () if price is not None else (f"money: no price for {spec.model}",)
    return replace(plan, prompt_tokens=tokens, money=money, notes=("scaled up from the preview's texts", *unpriced))


def _endpoints(setup: Setup) -> dict[str, OpenAIEmbeddingsSpec]:
    specs = {"encoder": setup.encoder, **{f"encoders.{name}": spec for name, spec in setup.encoders.items()}}
    return {place: spec for place, spec in specs.items() if isinstance(spec, OpenAIEmbeddingsSpec)}


def _plan(prospects: Prospects, prices: Prices, place: str, spec: OpenAIEmbeddingsSpec) -> EncoderPlan:
    try:
        counts = [
            _count(prospects, spec, role, stage) for role, stage in zip(_ROLES, encode_stages(place), strict=True)
        ]
    except NotKnown as reason:
        return EncoderPlan(place, "unknown", notes=(str(reason),))
    texts, known, characters = (
        sum(getattr(each, name) for each in counts) for name in ("texts", "known", "characters")
    )
    requests = sum(math.ceil((each.texts - each.known) / spec.batch_size) for each in counts)
    tokens = characters // CHARACTERS_PER_TOKEN
    notes = list[str]()
    if requests:
        notes.append(f"tokens estimated from characters ({CHARACTERS_PER_TOKEN} per token)")
    speed = _tokens_per_second(prospects.workspace.store, spec)
    hours = 0.0 if not requests else tokens / speed / _HOUR if speed else None
    if hours is None:
        notes.append("hours: unknown until a first part has run")
    price = prices.of(spec)
    if price is None:
        where = prospects.setup.config.prices or "flows/config/prices.yaml"
        notes.append(f"money: no price for {spec.model} in {where if isinstance(where, str) else 'the configuration'}")
    notes += _on_gold(prospects.setup, place)
    money = 0.0 if not requests else None if price is None else price.of(Usage(requests, tokens))
    return EncoderPlan(place, "exact", texts, known, requests, tokens, 0, hours, money, tuple(notes))


def _count(prospects: Prospects, spec: OpenAIEmbeddingsSpec, role: Role, stage: str) -> _Open:
    """Count the texts of a role; of a finished stage all are known, and no vector is looked up."""
    texts = pl.concat(_sent(prospects, spec, role)).unique("text_hash", keep="first", maintain_order=True)
    run = prospects.runs.get(stage)
    if run is not None and not run.unfinished:
        return _Open(texts.height, texts.height, 0)
    version = (ENCODE_PASSAGES if role == "passage" else ENCODE_QUERIES).version
    vectors = Vectors(prospects.workspace.store, part_keys.digest(part_keys.semantic(spec)), version)
    known = 0
    characters = 0
    for share in texts.iter_slices(_LOOKED_UP):
        found = vectors.recall(role, share["text_hash"])
        left = share if found is None else share.join(found, on="text_hash", how="anti")
        known += share.height - left.height
        characters += int(left["characters"].sum())
    return _Open(texts.height, known, characters)


def _sent(prospects: Prospects, spec: OpenAIEmbeddingsSpec, role: Role) -> Iterator[pl.DataFrame]:
    """Yield `text_hash` and the `characters` that would be sent of each text, with the prompt."""
    prompt = len(spec.query_prompt if role == "query" else spec.passage_prompt)
    frames = partial(_count_characters, most=spec.max_chars, prompt=prompt)
    yield frames(pl.DataFrame(schema={"text_hash": pl.String, "text": pl.String}))
    if role == "query":
        yield frames(prospects.texts.queries.filter(pl.col("split") == "train"))
        return
    for passages in prospects.texts.passages.frames():
        title = pl.when(pl.col("title") != "").then(pl.col("title") + " ").otherwise(pl.lit(""))
        yield frames(passages.with_columns(text=title + pl.col("text")))


def _count_characters(texts: pl.DataFrame, most: int, prompt: int) -> pl.DataFrame:
    length = pl.col("text").str.len_chars().cast(pl.Int64)
    return texts.select("text_hash", characters=pl.min_horizontal(length, pl.lit(most, pl.Int64)) + prompt)


def _tokens_per_second(store: Store, spec: OpenAIEmbeddingsSpec) -> float | None:
    """Return how fast the endpoint read in earlier parts; None if there is none."""
    engine, tokens, seconds = part_keys.semantic(spec), 0, 0.0
    for stage in (ENCODE_PASSAGES.name, ENCODE_QUERIES.name):
        named = sorted(newest_attempts(store, stage).items())[:_MOST_READ]
        for manifest in read_manifests(store, stage, named):
            facts = manifest.stats.get("facts", {})
            if manifest.ingredients.get("engine") == engine and facts.get("prompt_tokens"):
                tokens, seconds = tokens + facts["prompt_tokens"], seconds + facts.get("engine_seconds", 0.0)
    return tokens / seconds if seconds else None


def _on_gold(setup: Setup, place: str) -> Iterator[str]:
    if setup.gold is not None and place == "encoder":
        yield "gold: the texts of the gold set are encoded too, once; they are not counted above"
