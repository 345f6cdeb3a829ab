"""Write the card of a dataset folder: what was curated, from which sources, who judged it, and how well they agree."""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import polars as pl
import yaml

from tasks.data.writing.config import ExportConfig
from tasks.data.writing.files import Lines
from tasks.data.writing.training_set import TrainingSet

_ANY = "*"
_MARKS = {
    "score": "soft label: {}",
    "decided_by": "who decided: `label` (of the source), `judge` or `human`",
    "origin": "where the passage stood at first: `positive`, `negative`, or `pool` (mined, and not picked)",
    "teacher": "score that came with the source",
}
_SOFT_LABELS = {
    "decision": "P(relevant) of the final decision; 1 or 0 by the side where nobody judged the passage",
    "teacher": "the score that came with the source; null where there was none",
}


def write_card(config: ExportConfig, path: Path, rows: TrainingSet, counts: Mapping[str, int]) -> None:
    """Write the card as Markdown, with the front matter that `datasets` and model hubs read."""
    with Lines(path) as file:
        file.write(["---", *_front_matter(config, rows, counts), "---", ""])
        file.write([*_title(config, rows), *_columns(config, rows), *_sources(config, rows), *_decided(config)])
        for title, note, table in _agreement(rows):
            file.write([f"## {title}", "", note, "", *_table(table), ""])


def _front_matter(config: ExportConfig, rows: TrainingSet, counts: Mapping[str, int]) -> list[str]:
    parts = {"default": "data"} | ({"without_negatives": "without_negatives"} if counts["without_negatives"] else {})
    found: dict[str, object] = {
        "configs": [
            {"config_name": name, "data_files": [{"split": "train", "path": f"{folder}/train-*.parquet"}]}
            for name, folder in parts.items()
        ],
        "task_categories": ["text-retrieval"],
    }
    licences = sorted({licence for _, _, licence in _licensed(config, rows) if licence})
    if licences:
        found["license"] = licences[0] if len(licences) == 1 else licences
    return yaml.safe_dump(found, sort_keys=False, allow_unicode=True).splitlines()


def _title(config: ExportConfig, rows: TrainingSet) -> list[str]:
    name = config.facts.curation if config.facts else ""
    treatment = ", ".join(sorted(rows.treatments))
    return [
        f"# Training set {name}".rstrip(),
        "",
        f"Retrieval training rows, curated with Reneg: treatment `{treatment}`, {rows.height:,} rows, "
        f"{rows.count_passages(0):,} positives, {rows.count_passages(1):,} negatives, "
        f"{rows.without_negatives:,} rows without negatives.",
        "",
    ]


def _columns(config: ExportConfig, rows: TrainingSet) -> list[str]:
    soft = _SOFT_LABELS.get(config.soft_labels, "")
    marks = [f"| `…_passages[].{name}` | {text.format(soft)} |" for name, text in _MARKS.items() if rows.has(name)]
    extras = [f"| `{name}` | field of the source's rows; empty where a row had none |" for name in rows.extras]
    return [
        "## Columns",
        "",
        "| column | |",
        "|---|---|",
        "| `query_id`, `query` | the query; ids are unique within a subset |",
        "| `positive_passages` | relevant passages: `docid`, `title`, `text` |",
        "| `negative_passages` | passages that are not relevant: `docid`, `title`, `text` |",
        "| `subset` | the dataset that the row comes from |",
        *extras,
        *marks,
        "",
    ]


def _licensed(config: ExportConfig, rows: TrainingSet) -> Iterator[tuple[str, int, str]]:
    for name, count in sorted(rows.datasets.items()):
        yield name, count, config.licences.get(name, config.licences.get(_ANY, ""))


def _sources(config: ExportConfig, rows: TrainingSet) -> list[str]:
    lines = [
        f"| {_cell(name)} | {count:,} | {licence or 'not given'} |" for name, count, licence in _licensed(config, rows)
    ]
    return ["## Sources", "", "| subset | rows | licence |", "|---|---:|---|", *lines, ""]


def _decided(config: ExportConfig) -> list[str]:
    about = config.facts.about if config.facts else {}
    return (
        ["## How false negatives were decided", "", *(f"- {name}: {text}" for name, text in about.items()), ""]
        if about
        else []
    )


def _agreement(rows: TrainingSet) -> Iterable[tuple[str, str, pl.DataFrame]]:
    known, people = rows.agreement, rows.people
    if known is not None and known["known"].sum():
        names = ["tier", "candidates", "known", "found", "known_found", "recall", "precision", "auc"]
        yield (
            "Agreement with known false negatives",
            "False negatives that were known before the judging.",
            known.select(names),
        )
    if people is not None and people.height:
        names = ["tier", "labelled", "contradicted", "kappa", "precision", "recall"]
        yield (
            "Agreement with people",
            "Pairs that people labelled; kappa and rates are estimates.",
            people.select(names),
        )


def _table(frame: pl.DataFrame) -> list[str]:
    cells = [[_cell(_number(value)) for value in row] for row in frame.iter_rows()]
    lines = [frame.columns, ["---"] * frame.width, *cells]
    return [f"| {' | '.join(line)} |" for line in lines]


def _number(value: object) -> str:
    return "–" if value is None else f"{value:.3f}" if isinstance(value, float) else str(value)


def _cell(text: str) -> str:
    return text.replace("|", "\\|")
