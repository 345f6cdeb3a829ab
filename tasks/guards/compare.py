"""Compare the texts of pairs that shared a bucket: near duplicates are those whose shingles are similar enough."""

import polars as pl

from tasks.guards.config import NearConfig
from tasks.guards.duplicates import show
from tasks.guards.sketches import shingle, similarities
from tasks.guards.tables import LINKS, NEAR, number_texts

_PAIRS = 20_000  # compared at once


def compare_texts(config: NearConfig, *, pairs: pl.DataFrame, texts: pl.DataFrame) -> dict[str, pl.DataFrame]:
    """Compare the pairs of one shard.

    Args:
        config: the least similarity.
        pairs: a table of NEAR_CANDIDATES; a pair may stand several times.
        texts: the passages that the pairs name; there may be more, and one may stand several times.

    Returns:
        near: the near duplicates with their similarity. links: the same pairs, as numbers of texts.

    Raises:
        ValueError: a text is missing.
    """
    distinct = pairs.unique(["left_hash", "right_hash"]).sort("left_hash", "right_hash")
    held = texts.unique("text_hash").sort("text_hash").with_row_index("row")
    found = [NEAR.empty()]
    for slice_ in distinct.iter_slices(_PAIRS):
        found.append(_compare(slice_, held, config.similarity))
    near = pl.concat(found)
    links = near.select(left=number_texts("left_hash"), right=number_texts("right_hash"))
    return {"near": near, "links": links.unique().sort(LINKS.key)}


def _compare(pairs: pl.DataFrame, held: pl.DataFrame, least: float) -> pl.DataFrame:
    named = pl.concat([pairs["left_hash"], pairs["right_hash"].alias("left_hash")]).unique().sort()
    of_pairs = held.join(named.to_frame("text_hash"), on="text_hash", how="semi", maintain_order="left")
    if of_pairs.height < len(named):
        absent = named.filter(~named.is_in(of_pairs["text_hash"].to_list()))[0]
        raise ValueError(f"compare: the text with the hash {absent} is in a pair, but its passage did not come")
    shingles = shingle(show(of_pairs))
    at = [of_pairs["text_hash"].search_sorted(pairs[side]).to_numpy() for side in ("left_hash", "right_hash")]
    found = similarities(shingles, at[0], shingles, at[1], least)
    compared = pairs.with_columns(similarity=pl.Series(found, dtype=pl.Float64))
    return compared.filter(pl.col("similarity") >= least).select(*NEAR.columns)
