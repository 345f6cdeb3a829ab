"""What a configuration must hold, and what contradicts itself."""

from flows.config.load import parse_config
from tests.flows.settings import MINIMAL, refuse


def test_a_name_and_a_source_are_enough_and_the_dataset_takes_the_name() -> None:
    config = parse_config(MINIMAL, "my.yaml")
    assert config.ingest.dataset == "mine"
    assert config.treatments == ("default", "remove", "remove_hn", "relabel")


def test_a_margin_out_of_range_is_refused_with_its_bounds() -> None:
    message = refuse({"mine": {"relative_margin": 95}})
    assert message.startswith("my.yaml: mine: relative_margin must be between 0 and 1, got 95")


def test_exactly_one_source_is_demanded() -> None:
    assert "give either source.path or source.harvest" in refuse({"source": {}})


def test_training_needs_its_treatments() -> None:
    assert "train_on names ['relabel']" in refuse({"treatments": ["default"]})


def test_gc_has_a_schedule_of_its_own_which_may_be_none_and_must_be_cron() -> None:
    assert parse_config(MINIMAL, "my.yaml").retention.cron == "0 12 * * 0"
    assert parse_config({**MINIMAL, "retention": {"cron": None}}, "my.yaml").retention.cron is None
    assert "retention.cron: cron: five fields expected, such as '30 2 * * *', 'weekly' came" in refuse(
        {"retention": {"cron": "weekly"}}
    )


def test_fewer_gpus_than_an_engine_spreads_over_are_refused() -> None:
    tiers = [{"name": "big", "engine": {"device": "cuda", "tensor_parallel_size": 2}}, {"name": "small"}]
    message = refuse({"tiers": tiers, "resources": {"judge": {"num_gpus": 1}}})
    assert message.endswith(
        "resources: judge-big gets num_gpus=1, but the engine of tier 'big' has tensor_parallel_size=2; remove "
        "num_gpus, or give at least 2"
    )
    wanted = {"judge": {"num_gpus": 1}, "judge-big": {"num_gpus": 4}}
    assert "judge-gold-big gets num_gpus=1" in refuse({"tiers": tiers, "resources": wanted})
    parse_config({**MINIMAL, "tiers": tiers, "resources": {"judge": {"num_gpus": 2}}}, "my.yaml")
    shared = [{"name": "big", "engine": {"device": "cuda"}}]  # two engines may share a GPU
    parse_config({**MINIMAL, "tiers": shared, "resources": {"judge": {"num_gpus": 0.5}}}, "my.yaml")


def test_retrievers_are_built_in_or_named_encoders_and_no_encoder_is_idle() -> None:
    both = {"encoders": {"gte": {"model": "package:minilm"}}, "mine": {"retrievers": ["dense", "bm25", "gte"]}}
    assert parse_config({**MINIMAL, **both}, "my.yaml").mine.retrievers == ("dense", "bm25", "gte")
    assert "mine.retrievers: one of dense, bm25 expected, got 'gte'" in refuse({"mine": {"retrievers": ["gte"]}})
    assert "retrievers must differ, got bm25, bm25" in refuse({"mine": {"retrievers": ["bm25", "bm25"]}})
    assert "encoders.gte is used by nothing" in refuse({"encoders": {"gte": {}}})
    for name in ("bm25", "dense", "gold", "My-Model"):
        assert f"got {name!r}" in refuse({"encoders": {name: {}}, "mine": {"retrievers": [name]}})


def test_a_search_by_words_is_as_deep_as_mining_reads() -> None:
    shallow = {"bm25": {"depth": 50}, "mine": {"retrievers": ["bm25"]}}
    assert "bm25.depth=50 must not be below mine.depth=100" in refuse(shallow)
    parse_config({**MINIMAL, "bm25": {"depth": 50}}, "my.yaml")  # nobody searches by words


def test_vectors_from_files_have_no_settings_of_a_model_and_train_none() -> None:
    files = {"encoder": {"model": "vectors:folder"}}
    assert parse_config({**MINIMAL, **files, "train": None}, "my.yaml").encoder.model == "vectors:folder"
    assert "train: null expected: it needs a model" in refuse(files)
    told = refuse({"encoder": {"model": "vectors:folder", "query_prompt": "query: "}, "train": None})
    assert "encoder.query_prompt has no effect on vectors that are in files" in told
    beside = {"encoders": {"cohere": {"model": "vectors:folder"}}, "mine": {"retrievers": ["dense", "cohere"]}}
    parse_config({**MINIMAL, **beside}, "my.yaml")  # the first encoder is a model, and may be trained
