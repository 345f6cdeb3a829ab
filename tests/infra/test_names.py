"""Names with dashes and numbers: what is made is read back, and what is no name is refused."""

import pytest

from infra.names import ManifestName, NumberedId, PartName, StageName


@pytest.mark.parametrize(
    ("text", "stage", "label"),
    [
        ("judge", "judge", ""),
        ("treat-relabel", "treat", "relabel"),
        ("judge-gold-llm", "judge", "gold-llm"),
        ("encode_queries-gold", "encode_queries", "gold"),
    ],
)
def test_a_stages_label_begins_after_the_first_dash(text: str, stage: str, label: str) -> None:
    assert StageName.parse(text) == StageName(stage, label)
    assert str(StageName(stage, label)) == text


@pytest.mark.parametrize("text", ["", "-", "judge-", "-gold"])
def test_what_lacks_a_stage_or_its_label_is_no_name_of_a_stage(text: str) -> None:
    with pytest.raises(ValueError, match=f"'{text}' is no name of a stage; .* such as judge-gold-llm"):
        StageName.parse(text)


@pytest.mark.parametrize("stage", ["", "judge-gold"])
def test_a_stage_without_a_name_or_with_a_dash_is_refused(stage: str) -> None:
    with pytest.raises(ValueError, match=f"stage '{stage}': a name without dashes expected"):
        StageName(stage, "llm")


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("judge-gold-llm-00003", PartName(StageName("judge", "gold-llm"), 3)),
        ("ingest-00000", PartName(StageName("ingest"), 0)),
        ("judge-llm-123456", PartName(StageName("judge", "llm"), 123456)),
    ],
)
def test_a_parts_name_ends_in_at_least_five_digits(text: str, name: PartName) -> None:
    assert PartName.parse(text) == name
    assert str(name) == text


@pytest.mark.parametrize(
    "text", ["", "judge", "judge-3", "judge-0003", "judge-000003", "00003", "-00003", "judge-0000x", "judge-00003 "]
)
def test_what_is_no_name_of_a_part_is_told_how_one_looks(text: str) -> None:
    with pytest.raises(ValueError, match=r"is no name of a part; .* at least 5 digits expected, such as judge-gold"):
        PartName.parse(text)


def test_a_manifests_file_is_named_by_key_and_attempt() -> None:
    assert str(ManifestName("0a1b", 12)) == "0a1b-012"
    assert ManifestName.parse("0a1b-012") == ManifestName("0a1b", 12)
    assert ManifestName.parse("0a1b-1000").attempt == 1000
    with pytest.raises(ValueError, match=r"'0a1b-12' is no name of a manifest; .* at least 3 digits"):
        ManifestName.parse("0a1b-12")


def test_a_curations_number_has_at_least_six_digits_and_its_name_may_have_dashes() -> None:
    assert str(NumberedId("my-data", 3)) == "my-data-000003"
    assert NumberedId.parse("my-data-000003") == NumberedId("my-data", 3)
    assert NumberedId.parse("my-data-1000000") == NumberedId("my-data", 1_000_000)
    assert NumberedId.parse("night-000002-000010") == NumberedId("night-000002", 10)
    with pytest.raises(ValueError, match=r"'my-data-draft' is no name of a curation; .* such as my-data-000003"):
        NumberedId.parse("my-data-draft")


def test_names_are_in_the_order_of_their_numbers_not_of_their_spelling() -> None:
    ids = [NumberedId.parse(text) for text in ("nq-1000000", "nq-000002", "nq-999999", "an-000009")]
    assert [str(id_) for id_ in sorted(ids)] == ["an-000009", "nq-000002", "nq-999999", "nq-1000000"]


def test_names_can_be_kept_in_sets() -> None:
    names = {StageName("a"), PartName(StageName("a"), 1), ManifestName("a", 1), NumberedId("a", 1)}
    assert {StageName("a"), PartName(StageName("a"), 1), ManifestName("a", 1), NumberedId("a", 1)} == names


def test_parts_are_in_the_order_of_their_stages_and_numbers() -> None:
    texts = ["judge-llm-00010", "judge-gold-llm-00002", "encode-00000", "judge-llm-00009", "judge-llm-100000"]
    assert [str(name) for name in sorted(PartName.parse(text) for text in texts)] == [
        "encode-00000", "judge-gold-llm-00002", "judge-llm-00009", "judge-llm-00010", "judge-llm-100000",
    ]  # fmt: skip
    manifests = sorted(ManifestName.parse(text) for text in ("b-000", "a-1000", "a-999"))
    assert [str(name) for name in manifests] == ["a-999", "a-1000", "b-000"]
