"""Patterns of secrets that can be told by their form alone: tokens of known vendors, and secrets in addresses.

Most patterns follow the rules of gitleaks (github.com/gitleaks/gitleaks, config/gitleaks.toml) and what the vendors say
of their tokens. Only forms with a mark of their own are listed, such as a prefix. A secret without a mark looks like a
digest, and no digest of ours may be hidden.
"""

import re
from collections.abc import Callable, Iterator
from typing import NamedTuple

HIDDEN = "***"
_LONGEST_WORD = 12
_LONGEST_ORDINARY = 14
_WORD = re.compile(
    rf"[a-z]{{1,{_LONGEST_WORD}}}|[A-Z]{{1,{_LONGEST_WORD}}}|[A-Z][a-z]{{1,{_LONGEST_WORD - 1}}}|[0-9]{{1,4}}"
)
_BETWEEN_WORDS = re.compile(r"[-_./ ]")
_DIGITS = re.compile(r"[0-9]{1,7}")


class _Pattern(NamedTuple):
    """marks: lower-case texts, one of which stands in every text with such a secret. replace: None hides all of it."""

    marks: tuple[str, ...]
    expression: re.Pattern[str]
    replace: str | Callable[[re.Match[str]], str] = HIDDEN


# A token begins where no other letter or digit stands before it. Each row: its prefixes, and what follows them.
_TOKENS: tuple[tuple[tuple[str, ...], str], ...] = (
    # models and data: OpenAI, Anthropic, OpenRouter, DeepSeek, Hugging Face, Groq, xAI, Perplexity, Replicate, NVIDIA
    (("sk-proj-", "sk-svcacct-", "sk-admin-", "sk-ant-", "sk-or-", "sk-lf-"), r"[A-Za-z0-9_-]{16,}"),
    (("sk-",), r"(?=[A-Za-z]*[0-9])[A-Za-z0-9]{20,}"),
    (("hf_",), r"[A-Za-z0-9]{20,}"),
    (("gsk_",), r"[A-Za-z0-9]{40,}"),
    (("xai-",), r"[A-Za-z0-9]{40,}"),
    (("pplx-",), r"[A-Za-z0-9]{40,}"),
    (("r8_",), r"[A-Za-z0-9]{37}"),
    (("nvapi-",), r"[A-Za-z0-9_-]{40,}"),
    # code: GitHub, GitLab, npm, PyPI, Docker, Prefect, Databricks, Terraform
    (("ghp_", "gho_", "ghu_", "ghs_", "ghr_"), r"[A-Za-z0-9]{20,}"),
    (("github_pat_",), r"[A-Za-z0-9_]{20,}"),
    (("glpat-", "gldt-", "glrt-", "glptt-", "glcbt-", "glsoat-", "gloas-"), r"[A-Za-z0-9_.=-]{16,}"),
    (("npm_",), r"[A-Za-z0-9]{36}"),
    (("pypi-",), r"[A-Za-z0-9_-]{50,}"),
    (("dckr_pat_",), r"[A-Za-z0-9_-]{20,}"),
    (("pnu_", "pnb_"), r"[A-Za-z0-9]{30,}"),
    (("dapi",), r"[a-f0-9]{32}"),
    # clouds: AWS, Google, DigitalOcean, Vault, Azure (client secrets, and keys that can be told by their middle)
    (("AKIA", "ASIA", "ABIA", "ACCA"), r"[A-Z2-7]{16}(?![A-Za-z0-9])"),
    (("ABSK",), r"[A-Za-z0-9+/]{100,}={0,2}"),
    (("AIza",), r"[A-Za-z0-9_-]{35}"),
    (("ya29.",), r"[A-Za-z0-9_-]{20,}"),
    (("GOCSPX-",), r"[A-Za-z0-9_-]{20,}"),
    (("dop_v1_", "doo_v1_", "dor_v1_"), r"[a-f0-9]{64}"),
    (("hvs.", "hvb."), r"[A-Za-z0-9_-]{24,}"),
    # messages and payments: Slack, Stripe, SendGrid, Grafana, Sentry
    (
        ("xoxa-", "xoxb-", "xoxc-", "xoxd-", "xoxe-", "xoxe.", "xoxo-", "xoxp-", "xoxr-", "xoxs-"),
        r"[A-Za-z0-9.%-]{10,}",
    ),
    (("xapp-",), r"[0-9]-[A-Za-z0-9-]{10,}"),
    (("sk_live_", "sk_test_", "rk_live_", "rk_test_"), r"[A-Za-z0-9]{10,}"),
    (("whsec_",), r"[A-Za-z0-9+/=]{20,}"),
    (("SG.",), r"[A-Za-z0-9_-]{20,}\.[A-Za-z0-9_-]{20,}"),
    (("glsa_", "glc_"), r"[A-Za-z0-9+/_=]{32,}"),
    (("sntrys_", "sntryu_"), r"[A-Za-z0-9+/_=]{40,}"),
)
_IN_QUERIES = (
    "sig|signature|token|key|api[-_]?key|subscription-key|access[-_]?key|access[-_]?token|auth[-_]?token|auth|password|"
    "passwd|pwd|secret|client[-_]?secret|code|jwt|se|sp|sv|awsaccesskeyid|x-amz-signature|x-amz-credential|"
    "x-amz-security-token|x-goog-signature|x-goog-credential"
)
_ASSIGNED = (
    r"password|passwd|passphrase|pwd|accountkey|sharedaccesskey|sharedaccesssignature|client[-_]?secret|"
    r"(?:x-)?api[-_]?key|access[-_]?token|auth[-_]?token|aws_secret_access_key|aws_session_token|secret[-_]?access[-_]?key|"
    r"(?:proxy-)?authorization|ocp-apim-subscription-key"
)


def is_ordinary(value: str) -> bool:
    """Tell whether a value may well stand in a text that is no secret: a few short words, or a number.

    >>> [is_ordinary(value) for value in ("none", "us-east-1", "reneg", "hunter2", "correct-horse-battery")]
    [True, True, True, False, False]
    """
    if len(value) > _LONGEST_ORDINARY:
        return False
    return bool(_DIGITS.fullmatch(value)) or all(_WORD.fullmatch(word) for word in _BETWEEN_WORDS.split(value) if word)


def hide_tokens(text: str) -> str:
    """Return a text in which every secret that can be told by its form is hidden.

    >>> hide_tokens("GET https://me:hunter2@host/x?sig=aB3%2F&page=2")
    'GET https://me:***@host/x?sig=***&page=2'
    """
    lower = text.lower()
    for pattern in _PATTERNS:
        for mark in pattern.marks:
            if mark in lower:
                text = pattern.expression.sub(pattern.replace, text)
                break
    return text


def _patterns() -> Iterator[_Pattern]:
    for prefixes, rest in _TOKENS:
        begin = "|".join(re.escape(prefix) for prefix in prefixes)
        yield _Pattern(tuple(p.lower() for p in prefixes), re.compile(rf"(?<![A-Za-z0-9])(?:{begin}){rest}"))
    key = r"(?:[A-Z0-9]+ )*PRIVATE KEY(?: BLOCK)?-----"
    yield _Pattern(("private key",), re.compile(rf"-----BEGIN {key}.*?(?:-----END {key}|\Z)", re.DOTALL))
    yield _Pattern(("eyj",), re.compile(r"(?<![\w-])eyJ[\w-]{10,}\.eyJ[\w-]{10,}(?:\.[\w-]*)?"))
    yield _Pattern(("q~",), re.compile(r"(?<![\w~.])[A-Za-z0-9_~.]{3}[0-9]Q~[A-Za-z0-9_~.-]{31,34}(?![\w~-])"))
    yield _Pattern(("jqqj9",), re.compile(r"(?<![A-Za-z0-9])[A-Za-z0-9]{52}JQQJ9[A-Za-z0-9]{27}(?:[A-Za-z0-9]{2}==)?"))
    yield _Pattern((":aa",), re.compile(r"(?<![A-Za-z0-9])(?:bot)?[0-9]{8,10}:AA[\w-]{33}(?![\w-])"))
    # Webhooks: whoever knows the path may post.
    hooks = r"hooks\.slack(?:-gov)?\.com/|webhook\.office\.com/|discord(?:app)?\.com/api/(?:v[0-9]+/)?webhooks/"
    yield _Pattern(
        ("hooks.slack", "webhook.office", "/webhooks/"), re.compile(rf"({hooks})[^\s\"'<>]+", re.I), rf"\1{HIDDEN}"
    )
    # Addresses: a name and a password, or a token in place of the name; keys and signatures among the parameters.
    yield _Pattern(("://",), re.compile(r"(://)([^\s/:@\"'<>?#]*):(|x-oauth-basic|[^\s/\"'<>]+)@"), _hide_userinfo)
    yield _Pattern(("http",), re.compile(r"(https?://)[^\s/:@\"'<>?#,]+@", re.I), rf"\1{HIDDEN}@")
    query = rf"((?:[?&;]|\\u0026)(?:{_IN_QUERIES})=)[^\s&\"'<>#\\]+"
    yield _Pattern(("=",), re.compile(query, re.I), rf"\1{HIDDEN}")
    scheme = r"(?:bearer|basic|token|digest|negotiate|apikey)\s+"
    assigned = (
        rf"((?<![a-z0-9])(?:{_ASSIGNED})[\"']?\s*[:=]\s*[\"']?(?:{scheme})?)(?!\*\*\*)([^\s\"',;&<>{{}}\\)]{{6,}})"
    )
    marks = ("pass", "pwd", "key", "token", "secret", "authorization", "sharedaccess")
    yield _Pattern(marks, re.compile(assigned, re.I), _hide_value)
    yield _Pattern(("bearer", "basic"), re.compile(r"(\b(?:bearer|basic)\s+)([\w.~+/=-]{16,})", re.I), _hide_mixed)


def _hide_userinfo(found: re.Match[str]) -> str:
    """Hide a password; where it is empty or says so, the name before it is the token."""
    scheme, name, password = found.groups()
    return f"{scheme}{name}:{HIDDEN}@" if password not in ("", "x-oauth-basic") else f"{scheme}{HIDDEN}@"


def _hide_value(found: re.Match[str]) -> str:
    """Hide what is assigned, unless it is an ordinary word: `password: expected`."""
    return found[0] if is_ordinary(found[2]) else found[1] + HIDDEN


def _hide_mixed(found: re.Match[str]) -> str:
    """Hide what follows `Bearer`, unless it is a word: a token has digits."""
    return found[1] + HIDDEN if any(letter.isdigit() for letter in found[2]) else found[0]


_PATTERNS = tuple(_patterns())
