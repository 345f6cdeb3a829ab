"""Write two small collections of our own, each with the verdicts of two judges, to walk through a calibration.

    python -m benchmarks.small_collections FOLDER                 # the collections and their configurations
    python -m benchmarks.small_collections --fill FOLDER SHEET    # fills a sheet in, as people would

A query asks how one thing of a household is done. Of its eight candidates three answer it. Five use its words and
answer nothing, so similarity does not tell them apart. The judge `weak` gives P(relevant) and is often wrong. The judge
`strong` gives grades from 0 to 3 and is seldom wrong. A hash chooses the pairs on which they err, so the files are the
same on every machine.
"""

import argparse
import csv
import hashlib
import json
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import yaml

THINGS = {
    "first": (
        "kettle",
        "mirror",
        "carpet",
        "oven",
        "window",
        "bicycle",
        "knife",
        "lamp",
        "chair",
        "drain",
        "shoe",
        "pan",
    ),
    "second": ("table", "blender", "curtain", "fridge", "door", "ladder", "saw", "radio", "sofa", "tap", "coat", "pot"),
}
VERBS = ("clean", "repair", "store")
ANSWERS = (
    "To {verb} a {thing}, take a soft cloth and go over the {thing} twice.",
    "Many people {verb} the {thing} with warm water and patience.",
    "A {thing} is quick to {verb}: follow its edges and let it rest.",
    "Before you {verb} the {thing}, put on gloves; then begin at the top.",
)
OTHERS = (
    "How do I {verb} a {thing}? That is what everybody asks me.",
    "It is no fun to {verb} a {thing}, and few people want to {verb} one.",
    "A shop in our town will {verb} your {thing} for a small fee.",
    "My aunt had to {verb} her {thing} on the day we came to visit.",
    "Why would anyone {verb} a {thing} at night?",
)
SHARES = {"weak": 0.25, "strong": 0.04}  # of the pairs on which a judge errs


def pairs(name: str) -> Iterator[tuple[str, str, str, bool]]:
    """Yield query id, document id, text, and whether it answers the query; the first of a query is its positive."""
    for number, thing in enumerate(THINGS[name]):
        verb = VERBS[number % len(VERBS)]
        texts = [(answer.format(verb=verb, thing=thing), True) for answer in ANSWERS]
        texts += [(text.format(verb=verb, thing=thing), False) for text in OTHERS]
        for place, (text, relevant) in enumerate(texts):
            yield f"q{number}", f"{thing}-{place}", text, relevant


def question(name: str, query: str) -> str:
    """Return the text of a query."""
    number = int(query.removeprefix("q"))
    return f"how do I {VERBS[number % len(VERBS)]} a {THINGS[name][number]}"


def write(folder: Path, **changes: Any) -> None:
    """Write both collections, their judges' files and their configurations.

    Args:
        folder: where they are written.
        **changes: settings of both configurations, such as another encoder.
    """
    for name in THINGS:
        rows = list(pairs(name))
        (folder / name / "qrels").mkdir(parents=True)
        (folder / name / "runs").mkdir()
        corpus = {document: text for query, document, text, _ in rows}
        queries = {query: question(name, query) for query, *_ in rows}
        positives = {query: document for query, document, *_ in reversed(rows)}
        _write_lines(folder / name / "corpus.jsonl", corpus)
        _write_lines(folder / name / "queries.jsonl", queries)
        labels = "".join(f"{query}\t{document}\t1\n" for query, document in positives.items())
        (folder / name / "qrels" / "train.tsv").write_text(f"query-id\tcorpus-id\tscore\n{labels}")
        ranked = [
            f"{query} Q0 {document} {n} {1 / n:.4f} us\n"
            for n, (query, document, *_) in enumerate(sorted(rows, key=lambda row: _draw("ranks", *row[:2])), 1)
            if document != positives[query]
        ]
        (folder / name / "runs" / "given.trec").write_text("".join(ranked))
        said = [
            (query, document, _weak(query, document, relevant), _strong(query, document, relevant))
            for query, document, _, relevant in rows
        ]
        (folder / f"{name}.tsv").write_text("query_id\tdoc_id\tweak\tstrong\n" + _table(said))
        config = {**settings(name), **changes}
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(config, sort_keys=False))


def settings(name: str) -> dict[str, Any]:
    """Give the settings of one collection; the second one is judged by the calibration of the first."""
    weak = {"kind": "scores", "path": f"{name}.tsv", "columns": {"score": "weak"}}
    strong = {"kind": "scores", "path": f"{name}.tsv", "columns": {"score": "strong"}, "scale": "grade"}
    calibrated = {"calibration": "calibration.json", "decide": {"precision": 0.9}} if name == "second" else {}
    return {
        "name": name,
        "source": {"path": name},
        "ingest": {"test_split": None},
        "tiers": [{"name": "weak", "engine": weak}, {"name": "strong", "engine": strong}],
        **calibrated,
        "treatments": ["default", "relabel"],
        "train": None,
        **({"sample": {"size": 96}} if name == "first" else {}),
    }


def fill(sheet: Path) -> int:
    """Fill a sheet of the first collection in; returns how many pairs are labelled."""
    answers = {(question("first", query), text) for query, _, text, relevant in pairs("first") if relevant}
    with sheet.open(encoding="utf-8-sig", newline="") as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        row["label"] = "relevant" if (row["query"], row["passage"]) in answers else "not_relevant"
    with sheet.open("w", encoding="utf-8-sig", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), quoting=csv.QUOTE_NONNUMERIC)
        writer.writeheader()
        writer.writerows(rows)
    return len(rows)


def _draw(judge: str, query: str, document: str) -> float:
    """Draw a number from 0 to 1 that depends on the pair alone."""
    digest = hashlib.sha256(f"{judge} {query} {document}".encode()).hexdigest()
    return int(digest[:8], 16) / 16**8


def _says(judge: str, query: str, document: str, relevant: bool) -> bool:
    return relevant != (_draw(f"{judge} errs", query, document) < SHARES[judge])


def _weak(query: str, document: str, relevant: bool) -> float:
    spread = 0.45 * _draw("weak", query, document)
    return round(0.5 + spread if _says("weak", query, document, relevant) else 0.5 - spread, 3)


def _strong(query: str, document: str, relevant: bool) -> int:
    more = _draw("strong", query, document) < 0.5
    return (3 if more else 2) if _says("strong", query, document, relevant) else (1 if more else 0)


def _table(rows: Iterable[tuple[object, ...]]) -> str:
    return "".join("\t".join(map(str, row)) + "\n" for row in rows)


def _write_lines(path: Path, texts: dict[str, str]) -> None:
    path.write_text("".join(json.dumps({"_id": id_, "text": text}) + "\n" for id_, text in texts.items()))


def main() -> int:
    """Write the collections, or fill a sheet in."""
    parser = argparse.ArgumentParser(description="Two small collections with judges from files")
    parser.add_argument("folder", type=Path, help="where they are written")
    parser.add_argument("--fill", type=Path, metavar="SHEET", help="fill this sheet of the first collection in instead")
    arguments = parser.parse_args()
    if arguments.fill is None:
        write(arguments.folder)
    else:
        sys.stdout.write(f"{fill(arguments.fill)} pairs labelled\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
