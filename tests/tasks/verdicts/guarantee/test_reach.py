"""What a guarantee reached."""

from typing import Any

import polars as pl

from tasks.schemas import GUARANTEE
from tasks.verdicts.escalate import TargetConfig
from tasks.verdicts.guarantee.reach import GuaranteeConfig, count_found, guarantee
from tests.tasks.verdicts.guarantee.audited import answers, config, pool, settled
from tests.tasks.verdicts.judged import Judged

CONFIG = GuaranteeConfig(tier="strong", target=TargetConfig(recall=0.9, precision=0.9, confidence=0.9))


def outcome(before: list[Judged], oracle: list[Judged]) -> dict[str, Any]:
    made = settled(config(), before, oracle)
    said = pl.concat([made["audited"], answers(made["escalated"], oracle)])
    return {**made, "llm_verdicts": said}


def test_what_was_reached_is_counted_over_questions() -> None:
    before, oracle = pool()
    made = outcome(before, oracle)
    found = count_found(CONFIG, candidates=made["candidates"], llm_verdicts=made["llm_verdicts"])["found"]
    table = guarantee(CONFIG, thresholds=made["thresholds"], found=found)["guarantee"]
    assert dict(table.schema) == GUARANTEE.columns
    (row,) = table.iter_rows(named=True)
    assert row["asked"] + row["accepted"] + row["rejected"] == row["questions"] == 2000
    assert row["asked"] < 1500
    assert row["recall_bound"] >= 0.9
    assert row["precision_bound"] >= 0.9
    relevant = sum(state == "relevant" for *_, state, _ in oracle)
    assert row["found"] <= relevant
    assert (row["tier"], row["recall"], row["precision"], row["confidence"]) == ("strong", 0.9, 0.9, 0.9)


def test_what_the_parts_found_is_added_up() -> None:
    made = outcome(*pool())
    halves = [made["candidates"].filter(pl.col("query_id").str.ends_with("0") == even) for even in (True, False)]
    parts = [count_found(CONFIG, candidates=half, llm_verdicts=made["llm_verdicts"])["found"] for half in halves]
    whole = count_found(CONFIG, candidates=made["candidates"], llm_verdicts=made["llm_verdicts"])["found"]
    tables = [guarantee(CONFIG, thresholds=made["thresholds"], found=f)["guarantee"] for f in (pl.concat(parts), whole)]
    assert all(part["asked"][0] > 0 for part in parts)
    assert tables[0].equals(tables[1])
