"""The page of settings says what there is, and of every setting what it means."""

from pydantic import BaseModel

from flows.config.curation import CurationConfig
from flows.config.load import models_in
from flows.config.settings_page import described, settings_page, shown_fields
from tests.conftest import ROOT


def unexplained(model: type[BaseModel], path: str = "") -> list[str]:
    found, texts = [], described(model)
    for name, field in shown_fields(model).items():
        inner = models_in(field.annotation)
        if not inner and not texts[name] and name != "kind":
            found.append(f"{path}{name}")
        found += [lack for one in inner for lack in unexplained(one, f"{path}{name}.")]
    return found


def test_every_setting_is_explained() -> None:
    assert unexplained(CurationConfig) == []


def test_the_page_is_that_of_the_classes() -> None:
    page = (ROOT / "docs" / "settings.md").read_text(encoding="utf-8")
    assert page == settings_page(), "python -m flows.config.settings_page > docs/settings.md"


def test_what_the_flow_sets_is_not_offered() -> None:
    page = settings_page()
    assert "| `max_false_negatives` | whole number | `7` | a query with more" in page
    assert page.count("`max_false_negatives`") == 1  # not the report's, which follows it
    assert "## agree" not in page
