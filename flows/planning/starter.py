"""Writes a first configuration for a source that was looked at: commented, and usable as it is."""

import hashlib
import json
import os
import re
from dataclasses import dataclass
from pathlib import Path

from flows.config.curation import PREVIEW
from flows.planning.survey import Survey
from tasks.data.export import FORMATS
from tasks.data.ingest_config import MOST_REJECTED
from tasks.data.layouts.fields import FieldNames

_GIB = 2**30
_LONGEST = 30  # characters of a name: room for what is added to it
_DIGEST = 8
_JUDGE = "package:qwen2.5-coder-1.5b-instruct"
_JUDGE_GIB = 7  # memory that the judge takes on a CPU, its conversion included
_FEW = 200  # training queries below which training shows nothing
_HOLDOUT = 0.1
_USUAL = frozenset(
    ("query", "query_id", "subset", "positive_passages", "negative_passages", "pos", "neg", "pos_scores", "neg_scores")
) | frozenset(("anchor", "positive", "negative", "_id", "docid", "text", "title", "score", "query-id", "corpus-id"))
_ENDINGS = re.compile(r"(\.(jsonl?|ndjson|parquet|arrow|feather|csv|tsv|gz|zst|bz2|xz|zip|tar))+$", re.IGNORECASE)


@dataclass(frozen=True)
class Machine:
    """What decides which judge is proposed: bytes of memory, and of each GPU."""

    memory: int
    gpus: tuple[int, ...] = ()


def name_of(address: str) -> str:
    """Make a curation's name of a source's address.

    >>> name_of("data/My Rows (v2).jsonl.gz"), name_of("s3://bucket/nq/"), name_of("hf://datasets/rlhn/default-100K")
    ('my-rows-v2', 'nq', 'default-100k')
    """
    last = _ENDINGS.sub("", address.rstrip("/").rpartition("/")[2])
    name = re.sub(r"[^a-z0-9]+", "-", last.lower()).strip("-")[:_LONGEST].rstrip("-").removesuffix(PREVIEW)
    return name or f"data-{hashlib.sha256(address.encode()).hexdigest()[:_DIGEST]}"


def path_beside(address: str, out: Path) -> str:
    """Write the address of a source as it is read from a configuration: relative to its folder, if it lies below it."""
    if "://" in address:
        return address
    path, folder = Path(address).absolute(), out.absolute().parent
    inside = os.path.relpath(path, folder)
    return str(path) if inside.startswith("..") else inside


def starter(found: Survey, name: str, path: str, machine: Machine) -> str:
    """Return the text of a configuration."""
    parts = (
        _head(found, name, path),
        _ingest(found),
        _candidates(found),
        _tiers(machine),
        _rest(found),
    )
    return "\n".join(parts)


def _head(found: Survey, name: str, path: str) -> str:
    return f"""\
# {_what(found)}
# Every setting: docs/settings.md. What is read of a source: docs/sources.md.
name: {json.dumps(name)}
source: {{path: {_in_quotes(path)}}}
treatments: [default, relabel]   # default: labels as they are. relabel: false negatives become positives
"""


def _what(found: Survey) -> str:
    more = "" if found.complete else "more than "
    if found.is_corpus:
        splits = ", ".join(f"{name} {size:,}" for name, size in found.splits.items()) or "none"
        sizes = f"{more}{found.documents:,} passages, {found.queries:,} queries"
        return f"A corpus ({found.form}): {sizes}; judged: {_printable(splits)}"
    return (
        f"Training rows ({found.form}): {more}{found.rows:,}, with {found.positives:.1f} positives and "
        f"{found.negatives:.1f} negatives on average"
    )


def _quoted(names: list[str]) -> str:
    return _in_quotes(names[0] if len(names) == 1 else names)


def _in_quotes(value: str | list[str]) -> str:
    """Write texts as YAML reads them back, whatever stands in them: what cannot be printed as its number."""
    text = json.dumps(value, ensure_ascii=False)
    return "".join(one if one.isprintable() else f"\\U{ord(one):08x}" for one in text)


def _printable(text: str) -> str:
    """Make text of other people's files safe in a comment."""
    return "".join(letter if letter.isprintable() else " " for letter in text)


def _ingest(found: Survey) -> str:
    lines = ["ingest:", f"  format: auto            # recognised: {found.form}"]
    named = {role: names.split(", ") for role, names in found.recognised.items() if role in FieldNames.model_fields}
    if {name for names in named.values() for name in names} - _USUAL:
        fields = ", ".join(f"{role}: {_quoted(names)}" for role, names in named.items())
        lines.append(f"  # fields: {{{fields}}}   # as recognised")
    lines += _splits(found) if found.is_corpus else _holdout(found)
    if stops := found.too_much_lost(MOST_REJECTED):
        lines.append(f"  # max_rejected: 1       # go on although {stops}; without this line, a run stops after ingest")
    lines.append("  # subset: {rows: 100000}   # only so many training queries, drawn by their texts")
    return "\n".join(lines) + "\n"


def _holdout(found: Survey) -> list[str]:
    named = [name for name in found.datasets if name]
    lines = [f"  holdout: {_HOLDOUT}            # share of queries that evaluate the models and are never relabelled"]
    if named:
        sizes = ", ".join(f"{name} {found.datasets[name]:,}" for name in named[:10])
        lines.append(f"  # datasets: {_printable(sizes)}")
    return lines


def _splits(found: Survey) -> list[str]:
    """Choose the qrels of training and test; where only one split is judged, a share of it is held out."""
    splits = {name: size for name, size in found.splits.items() if re.fullmatch(r"[\w.\-]+", name)}
    train = "train" if "train" in splits else max(splits, key=lambda name: splits[name], default="train")
    test = next((name for name in ("test", "dev") if name in splits and name != train), None)
    lines = [f"  train_split: {json.dumps(train)}    # the judgements of the training queries"]
    if test is not None:
        return [*lines, f"  test_split: {json.dumps(test)}      # those that evaluate the models"]
    warning = (
        ["  # There is no split for training: report no results on this one afterwards."] if train != "train" else []
    )
    return [
        *warning,
        *lines,
        "  test_split: null",
        f"  holdout: {_HOLDOUT}            # share of queries that evaluate the models and are never relabelled",
    ]


def _candidates(found: Survey) -> str:
    if found.given:
        return "# Queries bring candidates: they are judged as they are. For other queries, negatives are mined.\n"
    if found.is_corpus or found.bare == found.rows:
        whose = "the corpus" if found.is_corpus else "the passages of all rows"
        return f"# Negatives are mined in {whose} and then judged.\nmine: {{num_negatives: 7}}\n"
    if found.bare:
        return (
            f"# The rows' own negatives are judged. For the {found.bare:,} rows without any, negatives are mined.\n"
            "mine: {num_negatives: 7}\n"
        )
    return "# Every row has negatives: they are judged as they are, and nothing is mined.\n"


def _tiers(machine: Machine) -> str:
    endpoint = """\
  # An endpoint instead (`reneg plan` says what it costs):
  # - name: llm
  #   engine: {kind: openai, model: gpt-4o-mini-2024-07-18, api_key_env: OPENAI_API_KEY}
"""
    if machine.gpus:
        engine = f'{{model: "{_JUDGE}", device: cuda}}   # a larger one judges better, as `preset: strong-gpu`'
        most = 200_000
    elif machine.memory >= _JUDGE_GIB * _GIB:
        engine, most = f'{{model: "w8a8:{_JUDGE}"}}   # 8 bits, on the CPU', 5_000
    else:
        return (
            f"# Too little memory here for a language model ({machine.memory / _GIB:.0f} GiB; {_JUDGE_GIB} needed), so "
            "similarity alone ranks the candidates. It decides nothing until it is calibrated (docs/judging.md).\n"
            f"tiers: []\n{endpoint}"
        )
    return f"""\
# Judges after similarity, in the order they are asked. After the first run and some labels of people, calibrate them
# (`reneg calibrate`, docs/judging.md), then: calibration: latest, and decide: {{precision: 0.9}}
# Others that are ready to use: `reneg judges` (then `- {{preset: NAME}}` here).
tiers:
  - name: llm
    engine: {engine}
    escalate: {{max_pairs: {most}}}   # the likeliest ones by similarity
{endpoint}budget: {{hours: 4}}              # of engine time; a run stops there, and the next run continues
"""


def _rest(found: Survey) -> str:
    form = found.form if found.form in FORMATS else "tevatron"
    few = found.complete and (max(found.splits.values(), default=0) if found.is_corpus else found.queries) < _FEW
    train = (
        "train: null                     # too few queries to see an effect of training\n"
        if few
        else "train: {steps: 200}             # `train: null` curates without training\n"
    )
    forms = f"{form}, tevatron" if form == "beir" else form  # a BEIR folder holds no negatives
    return f"export: {{formats: [{forms}]}}     # {', '.join(FORMATS)}\n{train}"
