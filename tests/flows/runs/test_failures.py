from flows.runs.failures import CurationStopped, explain_failures, failure_of

FAILED = [
    ("judge-llm", 3, "PartError: engine died"),
    ("judge-llm", 5, "PartError: engine died"),
    ("treat-default", 0, "x"),
]


def test_every_failed_part_is_told_with_its_reason_and_the_command_that_repairs_it() -> None:
    assert explain_failures("mine-000001", FAILED).splitlines() == [
        "3 part(s) failed; everything else is kept.",
        "  judge-llm part 3, 5: PartError: engine died",
        "    reneg rerun mine-000001 --stage judge-llm --part 3 --downstream",
        "    reneg rerun mine-000001 --stage judge-llm --part 5 --downstream",
        "  treat-default part 0: x",
        "    reneg rerun mine-000001 --stage treat-default --part 0 --downstream",
    ]


def test_a_part_that_failed_for_a_setting_is_computed_by_curate_with_the_changed_file() -> None:
    reason = "EndpointError: status 422: seed: no; set `seed: null` in the tier's `engine`"
    assert explain_failures("mine-000001", [("judge-llm", 3, reason)]).splitlines()[1:] == [
        f"  judge-llm part 3: {reason}",
        "    change that in the file and run `reneg curate FILE`: `reneg rerun` keeps the settings as they were",
        "    reneg rerun mine-000001 --stage judge-llm --part 3 --downstream",
    ]


def test_further_work_is_repaired_by_its_own_command() -> None:
    lines = explain_failures("mine-000001", [("train-relabel_s43", 0, "x")], "reneg retrain mine-000001").splitlines()
    assert lines[1:] == [
        "  train-relabel_s43 part 0: x",
        "    reneg retrain mine-000001   # computes these and the parts that wait for them",
    ]


def test_a_used_up_budget_is_no_failure_of_parts() -> None:
    reason = "Task run encountered an exception BudgetReached: end-by time 2026-11-23 06:00:00 UTC reached"
    stopped = failure_of("mine-000001", [("judge-llm", n, reason) for n in range(4)])
    assert isinstance(stopped, CurationStopped)
    assert str(stopped).startswith("stopped: end-by time 2026-11-23 06:00:00 UTC reached. 4 part(s) are left")
    assert not isinstance(failure_of("mine-000001", [("judge-llm", 0, reason), *FAILED]), CurationStopped)
