"""Read training rows: a query with its passages, in the layouts that trainers of retrieval models use.

- Tevatron and RLHN: `positive_passages` and `negative_passages`, objects with `docid`, `title` and `text`
- DPR: `question`, `positive_ctxs`, `negative_ctxs`, `hard_negative_ctxs`
- FlagEmbedding: `query`, `pos`, `neg` with `pos_scores`, `neg_scores`, `prompt`, `type`
- sentence-transformers: pairs, triplets, n-tuples, labelled pairs and labelled lists (`tuples.py`)

Each row is read by its own keys, so that one folder may hold several layouts.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from tasks.data.layouts.fields import FieldNames, Format, Layout, Unread, layout_of, named_keys
from tasks.data.layouts.values import has_content, name_of, number_of, required_text
from tasks.data.reading.objects import parsed
from tasks.data.reading.passages import PassageReader, listed
from tasks.data.reading.records import Passage, Row
from tasks.data.reading.tuples import bare_scores, label_of, merged
from tasks.lines import Problem, ReadLimits, UnusableError, kind_of
from tasks.texts import hash_text

_LONGEST_SOURCE = 100  # characters; what is longer, or an address, names no dataset
_SHOWN = 200  # characters of keys that a problem names
_NAMES = FieldNames()
_LIMITS = ReadLimits()
_STRUCTURED = ("tevatron", "dpr")


@dataclass(frozen=True, slots=True)
class RowOptions:
    """What the settings say of rows.

    form: the layout that all rows must have; None: each row is read by its own.
    positive_from: the lowest label of a positive; None: labels are 0 or 1.
    """

    form: Format | None = None
    names: FieldNames = _NAMES
    positive_from: float | None = None
    limits: ReadLimits = _LIMITS


_OPTIONS = RowOptions()


def read_rows(
    objects: Iterator[tuple[str, dict[str, object]] | Problem], name: str, options: RowOptions = _OPTIONS
) -> Iterator[Row | Problem]:
    """Read the objects of the file `name` as rows. A passage that cannot be used is left out; its row is kept.

    Rows of sentence-transformers that follow each other and have the same query become one row. The last items are
    problems that count the fields with content that nobody read, and name those that the settings name in vain.
    """
    reader = RowReader(options)
    yield from merged(parsed(objects, reader.row), options.limits.passages)
    yield from reader.of_fields(name)


class RowReader:
    """Reads the rows of one file, and counts the fields that nobody reads."""

    def __init__(self, options: RowOptions) -> None:
        """Begin a file."""
        self.options = options
        self.unread = Unread()
        self.passages = PassageReader(options.names, self.unread)
        self._layouts: dict[tuple[str, ...], Layout] = {}

    def layout(self, found: Mapping[str, object]) -> Layout:
        """Return the layout of a row.

        Raises:
            UnusableError: the row has another layout than the settings ask for.
        """
        order = tuple(found)
        layout = self._layouts.get(order)
        if layout is None:
            layout = self._layouts[order] = layout_of(order, self.options.names)
        wanted = self.options.form
        if wanted and layout.form != wanted and layout.query and layout.positives:
            raise UnusableError("other_layout", f"the row is {layout.form}, the source is {wanted} (ingest.format)")
        return layout

    def of_fields(self, name: str) -> Iterator[Problem]:
        """Yield, at the end of the file `name`, a problem for each field that is not read, or not there."""
        yield from problems_of_fields(name, self.unread, self.fields, self.options.names)

    @property
    def fields(self) -> set[str] | None:
        """The fields that rows of the file have; None where there was no row."""
        return {key for keys in self._layouts for key in keys} if self._layouts else None

    def learn(self, other: "RowReader") -> None:
        """Count what another reader counted in later rows of the same file."""
        self.unread.keys.update(other.unread.keys)
        self._layouts.update(other._layouts)

    def row(self, where: str, found: dict[str, object]) -> Row:
        """Read a row.

        Raises:
            UnusableError: it cannot be used.
        """
        layout = self.layout(found)
        problems: list[Problem] = []
        self._check_count(found, layout)
        if not layout.query:
            raise UnusableError("no_query", f"no field of the row is known as a query; {_keys(found)}")
        query = required_text(found[layout.query], layout.query, "no_query")
        query_id = name_of(found.get(layout.query_id), layout.query_id) if layout.query_id else ""
        dataset = self._dataset(found, layout)
        extras = {key: value for key in layout.extras if isinstance(value := found[key], str) and value}
        self.unread.add(found, [key for key in layout.extras if key not in extras])
        if layout.documents or (layout.labels and layout.positives and not layout.negatives):
            positives, negatives = self._labelled(where, found, layout, problems)
        else:
            positives, negatives = self._two_sides(where, found, layout, problems)
            _require(positives, problems, found)
        self.unread.add(found, layout.unread)
        unnamed = not query_id and layout.form == "sentence-transformers"
        query_id = query_id or hash_text(query)
        return Row(where, dataset, query_id, query, positives, negatives, problems, extras, unnamed)

    def _dataset(self, found: Mapping[str, object], layout: Layout) -> str | None:
        """Read the dataset's name. What stands under `dataset` or `source` and is no name is counted as unread."""
        key = layout.dataset
        if not key:
            return None
        value = found[key]
        if key in ("subset", self.options.names.dataset):
            return name_of(value, key) or None
        if isinstance(value, str) and len(value) <= _LONGEST_SOURCE and "://" not in value:
            return name_of(value, key) or None
        self.unread.add(found, [key])
        return None

    def _check_count(self, found: Mapping[str, object], layout: Layout) -> None:
        keys = (*layout.positives, *layout.negatives, *((layout.documents,) if layout.documents else ()))
        count = sum(len(value) for key in keys if isinstance(value := found[key], list))
        most = self.options.limits.passages
        if count > most:
            said = f"{count} passages, at most {most} expected (ingest.limits.passages)"
            raise UnusableError("too_many_passages", said)

    def _two_sides(
        self, where: str, found: Mapping[str, object], layout: Layout, problems: list[Problem]
    ) -> tuple[list[Passage], list[Passage]]:
        """Read positives and negatives from fields of their own."""
        positives = self._side(where, found, layout, layout.positives, problems)
        negatives = self._side(where, found, layout, layout.negatives, problems)
        sides = []
        shared = bare_scores(found.get(layout.labels), len(positives), len(negatives)) if layout.labels else None
        if layout.labels and shared is None:
            self.unread.add(found, [layout.labels])
        named = (layout.positive_scores, "positives"), (layout.negative_scores, "negatives")
        for number, (passages, (key, side)) in enumerate(zip((positives, negatives), named, strict=True)):
            scores = shared[number] if shared else _scores(where, found.get(key), len(passages), (key, side), problems)
            scored = zip(passages, scores, strict=True)
            sides.append([one if score is None else replace(one, score=score) for one, score in scored if one])
        return sides[0], sides[1]

    def _side(
        self, where: str, found: Mapping[str, object], layout: Layout, keys: tuple[str, ...], problems: list[Problem]
    ) -> list[Passage | None]:
        """Read the passages of several fields. An unusable one becomes None, and a problem is added."""
        passages: list[Passage | None] = []
        for key in keys:
            values = listed(found[key], key)
            empty = isinstance(found[key], str) and not str(found[key]).strip()
            if empty and (len(keys) > 1 or keys == layout.negatives):
                continue  # an empty cell of a table
            for number, value in enumerate(values, start=1):
                if value is None and len(keys) > 1:
                    continue  # a column that this row leaves empty
                try:
                    kind = "object" if layout.form in _STRUCTURED else "any"
                    passages.append(self.passages.passage(where, value, key, kind))  # type: ignore[arg-type]
                except UnusableError as error:
                    passages.append(None)
                    problems.append(Problem(where, error.reason, f"{key} {number}: {error.detail}"))
        return passages

    def _labelled(
        self, where: str, found: Mapping[str, object], layout: Layout, problems: list[Problem]
    ) -> tuple[list[Passage], list[Passage]]:
        """Read passages whose labels say which are positives; the labels stand beside them or in them."""
        key = layout.documents or layout.positives[0]
        values = listed(found[key], key)
        if not values:
            raise UnusableError("no_positive", f"{key} is empty")
        given = found[layout.labels] if layout.labels else None
        if not has_content(given):
            labels = [self.passages.label(value) for value in values]
            if all(label is None for label in labels) and layout.labels and not layout.documents:
                said = f"{layout.labels} is empty, so nobody knows if {key} is a positive. Set ingest.fields.labels to "
                raise UnusableError("unclear_label", f"{said}none if {layout.labels} is no label")
            if all(label is None for label in labels):
                raise UnusableError("bad_labels", f"no label says which of {key} is a positive; {_keys(found)}")
        else:
            labels = given if isinstance(given, list) else [given]
        if len(labels) != len(values):
            said = f"{layout.labels} holds {len(labels)} labels for {len(values)} passages"
            raise UnusableError("bad_labels", said)
        positives: list[Passage] = []
        negatives: list[Passage] = []
        for number, (value, label) in enumerate(zip(values, labels, strict=True), start=1):
            try:
                positive, score = label_of(label, layout.labels or "label", self.options.positive_from)
                passage = self.passages.passage(where, value, key)
            except UnusableError as error:
                problems.append(Problem(where, error.reason, f"{key} {number}: {error.detail}"))
                continue
            (positives if positive else negatives).append(passage if score is None else replace(passage, score=score))
        if not positives and not negatives:
            raise UnusableError(problems[0].reason, problems[0].detail)
        return positives, negatives


def problems_of_fields(name: str, unread: Unread, there: set[str] | None, names: FieldNames) -> Iterator[Problem]:
    """Yield a problem for each field of the file `name` that is not read, or that the settings name in vain."""
    yield from unread.problems(name)
    if there is not None:
        for key in sorted(named_keys(names) - there):
            yield Problem(name, "no_such_field", f"ingest.fields names {key!r}, which no row of the file has")


def _require(positives: list[Passage], problems: list[Problem], found: Mapping[str, object]) -> None:
    if not positives:
        why = f" ({problems[0].detail})" if problems else f"; {_keys(found)}"
        raise UnusableError("no_positive", f"the row has no usable positive{why}")


def _keys(found: Mapping[str, object]) -> str:
    return f"it has {', '.join(found)[:_SHOWN] or 'no keys'}. See ingest.fields"


def _scores(
    where: str, values: object, count: int, named: tuple[str, str], problems: list[Problem]
) -> list[float | None]:
    """Read the scores of one side. A list that does not fit is reported and left out; the row is kept."""
    nothing: list[float | None] = [None] * count
    key, side = named
    if values is None or not key:
        return nothing
    if count == 1 and number_of(values) is not None:
        values = [values]
    if not isinstance(values, list) or len(values) != count:
        size = f"{len(values)} values" if isinstance(values, list) else kind_of(values)
        problems.append(Problem(where, "bad_scores", f"{key} holds {size} for {count} {side}; left out"))
        return nothing
    scores = [number_of(value) for value in values]
    if any(score is None and value is not None for score, value in zip(scores, values, strict=True)):
        problems.append(Problem(where, "bad_scores", f"{key} holds what is no finite number; left out"))
        return nothing
    return scores
