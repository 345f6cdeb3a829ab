"""Secrets are told by their form alone: thirty shapes, made up here, each with what stays of the text around it."""

import pytest

from infra.token_patterns import hide_tokens, is_ordinary

_A = "aB3dE5fG7hJ9kL1mN2pQ4rS6tU8vW0xY1zA2bC3dE4fG5hJ6kL7"  # letters of both kinds and digits; no real token
_HEX = "0123456789abcdef" * 4
# Put together here, so that no scanner takes this file for one with a secret in it.
_DIGITS, _DASHES = "123456789012", "-" * 5
_PRIVATE = f"PRIVATE KEY{_DASHES}"

TOKENS = {
    "OpenAI": f"sk-proj-{_A}",
    "OpenAI, old": f"sk-{_A[:48]}",
    "Anthropic": f"sk-ant-api03-{_A}-{_A}AA",
    "Hugging Face": f"hf_{_A[:34]}",
    "Groq": f"gsk_{_A}",
    "GitHub": f"ghp_{_A[:36]}",
    "GitHub, fine": f"github_pat_{_A[:22]}_{_A}",
    "GitLab": f"glpat-{_A[:20]}",
    "npm": f"npm_{_A[:36]}",
    "PyPI": f"pypi-AgEIcHlwaS5vcmc{_A}",
    "Docker": f"dckr_pat_{_A[:27]}",
    "Prefect": f"pnu_{_A[:36]}",
    "Databricks": f"dapi{_HEX[:32]}",
    "AWS": "AKIA" + "Q3EXAMPLE7TOY2AB",
    "Google": f"AIza{_A[:35]}",
    "Google, OAuth": f"ya29.{_A}",
    "DigitalOcean": f"dop_v1_{_HEX}",
    "Vault": f"hvs.{_A}",
    "Slack": f"xoxb-{_DIGITS}-abcdefABCDEF",
    "Stripe": f"sk_live_{_A[:24]}",
    "SendGrid": f"SG.{_A[:22]}.{_A[:43]}",
    "Grafana": f"glsa_{_A[:32]}_1a2b3c4d",
    "JWT": f"eyJhbGciOiJIUzI1NiJ9.eyJ{_A}.{_A}",
    "Azure, client": f"abc8Q~{_A[:34]}",
    "Azure, key": f"{_A}1JQQJ99{_A[:26]}",
    "Telegram": f"123456789:AA{_A[:33]}",
    "private key": f"{_DASHES}BEGIN RSA {_PRIVATE}\nMIIE\nabc\n{_DASHES}END RSA {_PRIVATE}",
    "private key, cut": f"{_DASHES}BEGIN OPENSSH {_PRIVATE}\\nb3Blbn",
}
INSIDE = {
    "postgresql://me:p@ss:word@db:5432/x": "postgresql://me:***@db:5432/x",
    "https://TOKEN@host/x": "https://***@host/x",
    "https://TOKEN:x-oauth-basic@host/x": "https://***@host/x",
    "https://TOKEN:@host/x": "https://***@host/x",
    "https://acc.blob.example/c/f?sv=2024-01-01&sp=r&se=2026&sig=aB%2F3d%3D": (
        "https://acc.blob.example/c/f?sv=***&sp=***&se=***&sig=***"
    ),
    "https://b.s3.example/k?X-Amz-Credential=AK%2F1&X-Amz-Security-Token=Fwo&X-Amz-Signature=0a1b&x-id=Get": (
        "https://b.s3.example/k?X-Amz-Credential=***&X-Amz-Security-Token=***&X-Amz-Signature=***&x-id=Get"
    ),
    "GET /v1?api_key=abc123&page=2": "GET /v1?api_key=***&page=2",
    "https://x.example/?key=abc&amp;access_token=def#top": "https://x.example/?key=***&amp;access_token=***#top",
    "https://hooks.slack.com/services/T000/B000/XXXX now": "https://hooks.slack.com/*** now",
    "https://discord.com/api/webhooks/123/abc-def": "https://discord.com/api/webhooks/***",
    "https://a.webhook.office.com/webhookb2/x@y/IncomingWebhook/z": "https://a.webhook.office.com/***",
    "host=db user=me password=hunter2 dbname=x": "host=db user=me password=*** dbname=x",
    "AccountName=a;AccountKey=abc/def+123==;Suffix=x": "AccountName=a;AccountKey=***;Suffix=x",
    '{"api_key": "abcDEF123456", "model": "m"}': '{"api_key": "***", "model": "m"}',
    "{'Authorization': 'Bearer abc.DEF.123456'}": "{'Authorization': 'Bearer ***'}",
    "authorization: Basic dXNlcjpwYXNz": "authorization: Basic ***",
    "sent Bearer abcdef0123456789abcdef": "sent Bearer ***",
}


@pytest.mark.parametrize("vendor", sorted(TOKENS))
def test_a_token_is_hidden_wherever_it_stands(vendor: str) -> None:
    token = TOKENS[vendor]
    assert hide_tokens(token) == "***"
    if "cut" not in vendor:
        assert hide_tokens(f"refused: {token!r}, try again") == "refused: '***', try again"
        assert hide_tokens(f'{{"said": "{token}"}}') == '{"said": "***"}'


@pytest.mark.parametrize("text", sorted(INSIDE))
def test_of_an_address_a_query_or_a_setting_only_the_secret_is_hidden(text: str) -> None:
    assert hide_tokens(text) == INSIDE[text]
    assert hide_tokens(INSIDE[text]) == INSIDE[text]


def test_what_only_begins_like_a_token_is_shown() -> None:
    begun = ["sk-", "sk-short", "hf_hub_download", "task-" + "a" * 30, "AKIA", "eyJhbGciOi", "ghp_1234", "x" * 90]
    assert [hide_tokens(text) for text in begun] == begun


def test_ordinary_is_what_people_write_as_a_placeholder_and_not_what_could_be_a_password() -> None:
    assert all(map(is_ordinary, ["none", "EMPTY", "Default", "us-east-1", "change_me", "postgres", "8000", ""]))
    assert not any(map(is_ordinary, ["hunter2", "Tr0ub4dor", "aB", "12345678", "correct-horse-battery", "p@ssword"]))
