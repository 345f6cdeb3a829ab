"""Our code in the shape of the re-typed defects: real functions from the input file to the training set."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl
import yaml

from flows.config.curation import CurationConfig
from flows.config.load import parse_config
from infra.engines.answers import Answer
from infra.engines.openai_requests import Reply as Http
from infra.engines.openai_requests import Trouble, read_completion
from tasks.data.ingest import IngestConfig, ingest
from tasks.data.treatments import treat
from tasks.judging import listwise
from tasks.judging.calls import Call, make_questions
from tasks.judging.config import JudgeConfig
from tasks.judging.judge import judge
from tasks.mining.adopt import AdoptConfig, adopt
from tasks.prompts.prompt import join_texts
from tasks.schemas import IRRELEVANT, VERDICTS
from tasks.texts import show_passage
from tasks.verdicts.decide import decide
from tasks.verdicts.escalate import AdmitConfig, admit, escalate
from tests.conftest import ROOT
from tests.paper.shapes import REASONING, Edited, Judged, Row, Said, Script, Shown

Tables = dict[str, Any]
_CANDIDATE = re.compile(r'<candidate id="(.*?)">\n(.*?)\n</candidate>', re.S)
_PAPER = ROOT / "flows" / "config" / "rlhn.yaml"


def paper_config(**changes: Any) -> CurationConfig:
    """The paper's rules, as we ship them."""
    settings = yaml.safe_load(_PAPER.read_text(encoding="utf-8"))
    return parse_config({**settings, **changes}, "rlhn.yaml")


def paper_judge(**changes: Any) -> JudgeConfig:
    """The paper's first judge."""
    return paper_config().tiers[0].judge.model_copy(update={"judge": "fake", "tier": "weak", **changes})


# ---- from rows in a file to candidates, as every curation does it ----


def read_rows(folder: Path, rows: Mapping[str, Row], dataset: str = "nq") -> Tables:
    """Write rows as Tevatron has them, ingest them, and take over their negatives."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = [json.dumps(_as_json(query_id, row, dataset)) + "\n" for query_id, row in rows.items()]
    (folder / "rows.jsonl").write_text("".join(lines), encoding="utf-8")
    config = IngestConfig(dataset="rows", query_parts=1, passage_parts=1)
    read: Tables = ingest(config, source=folder)
    tables = {name: pl.concat(read[name]) for name in ("queries", "positives", "given", "passages")}
    said = {name: tables[name] for name in ("given", "queries", "positives")}
    found = adopt(AdoptConfig(), **said, irrelevant=IRRELEVANT.empty())
    return tables | {name: found[name] for name in ("candidates", "negatives", "reserve")}


def _as_json(query_id: str, row: Row, dataset: str) -> dict[str, Any]:
    passages = {"p": row.positives, "n": row.negatives}
    listed = {
        side: [
            {"docid": f"{query_id}-{side}{n:03}", "title": title, "text": text} for n, (title, text) in enumerate(texts)
        ]
        for side, texts in passages.items()
    }
    return {
        "query_id": query_id,
        "query": f"{row.query} ({query_id})",
        "positive_passages": listed["p"],
        "negative_passages": listed["n"],
        "subset": dataset,
    }


# ---- a model that answers as it is told, heard through the reader of real responses ----


@dataclass
class JsonPen:
    """The format that we ask for, with the ids that stand in one prompt: a model knows nothing else of it."""

    row: Row
    call: Call

    marker = '"verdicts"'

    @property
    def ids(self) -> dict[int, str]:
        """Number of a negative to its id in this prompt; copies of a text share one."""
        shown = {text: id_ for id_, text in _CANDIDATE.findall(self.call.chat[-1]["content"])}
        texts = {number: show_passage(*texts) for number, texts in enumerate(self.row.negatives, start=1)}
        return {number: shown[text] for number, text in texts.items() if text in shown}

    def write(self, said: Said, reasoning: str = REASONING) -> str:
        count = len(self.row.negatives)
        named = [(self.ids.get(number, ""), word) for number, word in said if 1 <= number <= count]
        named += [(str(number), word) for number, word in said if not 1 <= number <= count]
        named = list(dict.fromkeys(pair for pair in named if pair[0]))  # two copies are one id
        others = [id_ for id_ in dict.fromkeys(self.ids.values()) if id_ not in dict(named)]
        pairs = [*named, *((id_, "none") for id_ in others)]
        verdicts = ", ".join(f"{json.dumps(id_)}: {json.dumps(word)}" for id_, word in pairs)
        return f'{{"reasoning": {json.dumps(reasoning)}, "verdicts": {{{verdicts}}}}}'

    def slovenly(self, numbers: Sequence[int]) -> Mapping[str, str]:
        named = [self.ids[number] for number in numbers if number in self.ids]
        others = {id_: "none" for id_ in self.ids.values() if id_ not in named}
        return {
            "in one bracket": json.dumps({"verdicts": {", ".join(named): "better"} | others}),
            "without bracket": json.dumps({"verdicts": {f"candidate {id_}": "better" for id_ in named} | others}),
            "without blank": json.dumps({"verdicts": "".join(f"{id_}:better," for id_ in named)}),
            "bare list": json.dumps({"verdicts": named}),
        }

    def in_passing(self, number: int) -> Mapping[str, str]:
        id_ = self.ids.get(number, "none")
        return {"after": f'{self.write([])} ("{id_}": "better" was considered but rejected)'}


@dataclass
class ScriptedModel:
    """An engine: what the script says comes as a vendor's response and is read by our client's own reader."""

    rows: Mapping[str, tuple[Row, Script]]

    def answer(self, requests: Sequence[Call]) -> list[Answer]:
        return [self._answer(call) for call in requests]

    def _answer(self, call: Call) -> Answer:
        query_id = call.question.query.rpartition("(")[2].rstrip(")")
        row, script = self.rows[query_id]
        reply = script(JsonPen(row, call))
        choice = {"finish_reason": reply.finish_reason, "message": {"role": "assistant", "content": reply.text}}
        read = read_completion(Http(200, json.dumps({"model": "m", "choices": [choice]})))
        return read.as_answer() if isinstance(read, Trouble) else read


# ---- the two stages ----


@dataclass
class Ours:
    """The paper's two stages, as `flows/config/rlhn.yaml` sets them."""

    folder: Path

    def judged(self, row: Row, script: Script) -> Judged:
        """The states of the row's negatives after stage 1, and whether stage 2 is asked about it."""
        tables = read_rows(self.folder, {"q": row})
        said = self._ask(tables, {"q": (row, script)})["verdicts"]
        states = {doc: state for doc, state in said.select("doc_id", "state").iter_rows()}
        forwarded = escalate(paper_config().tiers[1].escalate, candidates=tables["candidates"], verdicts=said)
        asked = forwarded["escalated"].height
        return Judged([states[doc] for doc in sorted(states)], escalated=asked == len(states) > 0)

    def relabelled(self, rows: Mapping[str, tuple[Row, Script]]) -> Sequence[tuple[str, Edited]]:
        """The training set, texts instead of ids."""
        tables = read_rows(self.folder, {query_id: row for query_id, (row, _) in rows.items()})
        said = self._ask(tables, rows)["verdicts"]
        config = paper_config()
        settings = config.decide.model_copy(update={"tiers": ("weak",), "lower": 0.0, "upper": 1.0})
        candidates = tables["candidates"]
        decided = decide(settings, candidates=candidates, verdicts=_undecided(candidates), llm_verdicts=said)
        names = ("queries", "positives", "candidates", "negatives", "reserve")
        made = treat(config.treat, **{name: tables[name] for name in names}, decisions=decided["decisions"])
        texts = dict(tables["passages"].select("doc_id", "text").iter_rows())
        listed = made["instances"].select("query_id", "positives", "negatives").iter_rows()
        return [(query, Edited([texts[d] for d in good], [texts[d] for d in bad])) for query, good, bad in listed]

    def _ask(self, tables: Tables, rows: Mapping[str, tuple[Row, Script]]) -> Tables:
        named = {name: tables[name] for name in ("queries", "passages", "positives")}
        escalated = tables["candidates"]
        made: Tables = judge(paper_judge(), escalated=escalated, **named, engine=ScriptedModel(rows), ledger=None)
        return made


def _undecided(candidates: pl.DataFrame) -> pl.DataFrame:
    """Similarity's verdicts where it knows nothing."""
    columns = {"tier": "similarity", "judge": "cosine", "state": "unsure", "score": 0.5, "attempt": 1}
    rows = candidates.select("dataset", "query_id", "doc_id").to_dicts()
    return pl.DataFrame([row | columns for row in rows], schema=VERDICTS.columns)


# ---- what is judged, by which rule, and what is shown ----


def is_skipped(folder: Path, dataset: str) -> bool:
    """Whether a row of `dataset` in a file below `folder` is kept from the judges."""
    row = Row("What is asked?", [("", "The known text.")], [("", "Another.")])
    candidates = read_rows(folder, {"q": row}, dataset)["candidates"]
    assert candidates.height == 1
    skip = tuple(name for name, policy in paper_config().policies.items() if policy.skip)
    return admit(AdmitConfig(skip=skip), candidates=candidates)["admitted"].is_empty()


def configure_judge(**settings: Any) -> JudgeConfig:
    """The judge of a curation's configuration; refused there, before anything is asked."""
    policies = settings.pop("policies", {})
    tiers = [{"name": "weak", "judge": {"protocol": "listwise", **settings}}]
    source = {"path": "rows.jsonl"}
    config = parse_config({"name": "mine", "source": source, "tiers": tiers, "policies": policies}, "my.yaml")
    return config.tiers[0].judge


def show(folder: Path, row: Row) -> Shown:
    """What the judge is shown of a row, over all its calls; positives of the first, as all show the same."""
    tables = read_rows(folder, {"q": row})
    joined = join_texts(tables["candidates"], **{name: tables[name] for name in ("queries", "passages", "positives")})
    config = JudgeConfig(judge="fake", protocol="listwise")
    calls = listwise.make_calls(config, make_questions(config, joined), 1, 0)
    prompts = [call.chat[-1]["content"] for call in calls]
    positives = re.findall(r"<known_relevant>\n(.*?)\n</known_relevant>", prompts[0], flags=re.S)
    read = [pair for prompt in prompts for pair in _CANDIDATE.findall(prompt)]
    return Shown("\n".join(prompts), positives, [text for _, text in read], [name for name, _ in read])
