"""Find queries that say nearly the same: sketch each text, and compare the sketches of texts that may be near.

A sketch is a MinHash: the share of equal numbers in two sketches estimates the Jaccard similarity of the texts' runs of
four characters. It is computed here, and not by a library, because it decides which queries are held out: with other
hash functions, or in another version, queries would move between training and test.
"""

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import polars as pl

from tasks.texts import normalise

Numbers = npt.NDArray[np.int64]
Signatures = npt.NDArray[np.uint32]

WINDOW = 4  # characters of one shingle
BANDS, ROWS = 16, 4  # two texts are compared if all numbers of one band are equal
_SIZE = BANDS * ROWS
_CHARACTERS = 200_000  # sketched at once, which fits the processor's cache
_PAIRS = 100_000  # compared at once
_NEIGHBOURS = 8  # texts after it, in one bucket, that a text is compared with
# `#`, `%`, `&` and `@` change what is meant (C# is not C); other punctuation does not.
_PUNCTUATION = r"[\p{P}\p{Z}\p{C}\s&&[^#%&@]]+"


def sketch(texts: pl.Series) -> pl.DataFrame:
    """Sketch texts.

    Returns:
        One row per text, in order: `same` (equal for texts that differ in case, punctuation, Unicode form and spaces
        only), `figures` (the numbers in the text, in order), `signature` (64 numbers of 32 bits).
    """
    plain = pl.Series("text", [normalise(text) for text in texts], dtype=pl.String)
    frame = plain.to_frame().select(
        bare=pl.col("text").str.replace_all(_PUNCTUATION, " ").str.strip_chars(), text="text"
    )
    same = frame.select(same=pl.when(pl.col("bare") == "").then("text").otherwise("bare")).to_series()
    signatures = np.empty((len(same), _SIZE), dtype=np.uint32)
    for start, end in _slices(same):
        signatures[start:end] = _signatures(same[start:end].to_list())
    return pl.DataFrame(
        {
            "same": same.hash(),
            "figures": same.str.extract_all(r"\p{N}+").list.join(" ").hash(),
            "signature": pl.Series(signatures, dtype=pl.Array(pl.UInt32, _SIZE)),
        }
    )


def near_pairs(sketches: pl.DataFrame, similarity: float) -> pl.DataFrame:
    """Find pairs of texts whose estimated similarity reaches a limit and whose numbers are the same.

    Of many texts in one bucket, each is compared with the first and with some neighbours, so the time grows with the
    number of texts. The order of the rows decides which these are.

    Args:
        sketches: as from `sketch`.
        similarity: from 0 to 1.

    Returns:
        `left` and `right`: row numbers of a pair, left below right, each pair once, sorted.
    """
    signatures = _matrix(sketches)
    figures = sketches["figures"].to_numpy()
    found = [pl.DataFrame(schema={"left": pl.Int64, "right": pl.Int64})]
    for keys in _bands(signatures):
        order = np.argsort(keys, kind="stable")
        found.append(_compare(*_candidates(keys[order], order), signatures, figures, similarity))
    return pl.concat(found).unique().sort("left", "right")


def nearest_of(sketches: pl.DataFrame, others: pl.DataFrame, similarity: float) -> pl.Series:
    """Find for each text another text that says the same or nearly the same.

    Args:
        sketches: of the texts, as from `sketch`.
        others: of the other texts, made in the same process.
        similarity: from 0 to 1; above 1 only the same texts are found.

    Returns:
        One row number of `others` per row of `sketches`, null where there is none.
    """
    left = sketches.with_row_index("left")
    first = others.with_row_index("right").group_by("same").agg(pl.col("right").min())
    same = left.join(first, on="same", how="inner").select(pl.col("left", "right").cast(pl.Int64))
    found = [same]
    if similarity <= 1:
        signatures = np.concatenate([_matrix(sketches), _matrix(others)])
        figures = np.concatenate([sketches["figures"].to_numpy(), others["figures"].to_numpy()])
        for keys in _bands(signatures):
            band = pl.DataFrame({"key": keys}).with_row_index("row").with_columns(pl.col("row").cast(pl.Int64))
            ours, theirs = band.head(sketches.height), band.tail(others.height)
            few = theirs.group_by("key", maintain_order=True).head(_NEIGHBOURS)
            pairs = ours.join(few, on="key", suffix="_other")
            near = _compare(pairs["row"].to_numpy(), pairs["row_other"].to_numpy(), signatures, figures, similarity)
            found.append(near.with_columns(pl.col("right") - sketches.height))
    best = pl.concat(found).group_by("left").agg(pl.col("right").min())
    rows = left.select(pl.col("left").cast(pl.Int64)).join(best, on="left", how="left", maintain_order="left")
    return rows["right"]


def _matrix(sketches: pl.DataFrame) -> Signatures:
    return sketches["signature"].to_numpy().reshape(sketches.height, _SIZE)


def _slices(texts: pl.Series) -> Iterator[tuple[int, int]]:
    """Cut texts into slices of about `_CHARACTERS` characters."""
    total = texts.str.len_chars().cum_sum().to_numpy()
    start = 0
    while start < len(texts):
        before = int(total[start - 1]) if start else 0
        end = max(start + 1, int(np.searchsorted(total, before + _CHARACTERS, side="right")))
        yield start, end
        start = end


def _signatures(texts: list[str]) -> Signatures:
    """Return the smallest value of each hash function over the shingles of each text."""
    padded = [f" {text} ".ljust(WINDOW) for text in texts]
    points = np.frombuffer("".join(padded).encode("utf-32-le"), dtype="<u4").astype(np.uint64)
    lengths = np.array([len(text) for text in padded], dtype=np.int64)
    counts = lengths - WINDOW + 1
    starts = np.concatenate([[0], np.cumsum(counts)[:-1]])
    at = np.arange(counts.sum()) + np.repeat(np.concatenate([[0], np.cumsum(lengths)[:-1]]) - starts, counts)
    whole = points.copy()
    for shift in range(1, WINDOW):
        whole = whole * np.uint64(0x100000001B3) ^ np.roll(points, -shift)
    shingles = _mix(whole[at])
    factors, terms = _functions()
    found = np.empty((_SIZE, len(texts)), dtype=np.uint32)
    for row, (factor, term) in enumerate(zip(factors, terms, strict=True)):
        values = ((shingles * factor + term) >> np.uint64(32)).astype(np.uint32)
        found[row] = np.minimum.reduceat(values, starts)
    return np.ascontiguousarray(found.T)


def _mix(values: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """Spread the bits of numbers (the end of SplitMix64)."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


def _functions() -> tuple[npt.NDArray[np.uint64], npt.NDArray[np.uint64]]:
    """Return the factors (odd) and the terms of the hash functions, always the same."""
    numbers = _mix(np.arange(1, 2 * _SIZE + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15))
    return numbers[:_SIZE] | np.uint64(1), numbers[_SIZE:]


def _bands(signatures: Signatures) -> Iterator[npt.NDArray[np.uint64]]:
    """Yield one key per text for each band: texts with equal keys are in one bucket."""
    for band in range(BANDS):
        keys = np.zeros(len(signatures), dtype=np.uint64)
        for column in range(band * ROWS, (band + 1) * ROWS):
            keys = _mix(keys ^ signatures[:, column])
        yield keys


def _candidates(keys: npt.NDArray[np.uint64], order: npt.NDArray[np.intp]) -> tuple[Numbers, Numbers]:
    """Return pairs of rows in one bucket: each row with the bucket's first, and with some neighbours.

    `keys` are sorted; `order` gives the row of each.
    """
    rows = order.astype(np.int64)
    new = np.concatenate([[True], keys[1:] != keys[:-1]]) if len(keys) else np.zeros(0, dtype=bool)
    first = np.maximum.accumulate(np.where(new, np.arange(len(keys)), 0))
    lefts, rights = [rows[first[~new]]], [rows[~new]]
    for shift in range(1, min(_NEIGHBOURS, len(keys) - 1) + 1):
        together = keys[shift:] == keys[:-shift]
        lefts.append(rows[:-shift][together])
        rights.append(rows[shift:][together])
    return np.concatenate(lefts), np.concatenate(rights)


def _compare(
    left: Numbers, right: Numbers, signatures: Signatures, figures: npt.NDArray[np.uint64], similarity: float
) -> pl.DataFrame:
    """Keep the pairs that are similar enough and have the same figures, each once."""
    pairs = pl.DataFrame({"left": left, "right": right}, schema={"left": pl.Int64, "right": pl.Int64}).unique()
    kept = [pairs.clear()]
    for piece in pairs.iter_slices(_PAIRS):
        a, b = piece["left"].to_numpy(), piece["right"].to_numpy()
        equal = (signatures[a] == signatures[b]).mean(axis=1) >= similarity
        kept.append(piece.filter(pl.Series(equal & (figures[a] == figures[b]))))
    return pl.concat(kept)
