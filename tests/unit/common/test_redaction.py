"""No secret passes into a log."""

import json

import pytest

from servery_common.redaction import Redactor


def test_values_and_url_credentials_are_masked() -> None:
    redact = Redactor(["hunter2", "hunter2-long"])
    assert redact("key=hunter2-long, hunter2") == "key=[REDACTED], [REDACTED]"
    assert redact("GET https://me:pw@host/simple") == "GET https://[REDACTED]@host/simple"
    assert redact("s3://b/k?X-Amz-Signature=abc&part=1") == "s3://b/k?X-Amz-Signature=[REDACTED]&part=1"


def test_short_values_and_plain_urls_stay_readable() -> None:
    text = "device=cpu 1 https://host/a@b"
    assert Redactor(["1", "cpu", ""])(text) == text


def test_values_that_become_known_later_are_masked_too() -> None:
    redact = Redactor(["swordfish"])
    redact.hide(["hunter2"])
    assert redact("swordfish and hunter2") == "[REDACTED] and [REDACTED]"


PEM = """-----BEGIN PRIVATE KEY-----
MC4CAQAwBQYDK2VwBCIEIJ1hsZ3v
VpguoRK9JLsLMREScVpezJpGXA7r
-----END PRIVATE KEY-----
"""


def test_every_line_of_a_long_value_is_masked() -> None:
    redact = Redactor([PEM])
    for line in PEM.splitlines():
        assert redact(f"  | {line}\r") == "  | [REDACTED]\r"
    for whole in (PEM, repr(PEM), json.dumps({"key": PEM}), repr(f"'{PEM}\""), PEM.replace("\n", "\r\n")):
        assert "MC4C" not in redact(whole)
        assert "VpguoRK9" not in redact(whole)


def test_a_short_line_of_a_long_value_stays_readable() -> None:
    assert Redactor(['{\n  "password": "hunter2"\n}'])("{} [} EOF") == "{} [} EOF"


@pytest.mark.parametrize("value", ['pa"ss\\word', "it's\\me", "bo'th\"kinds", "tab\there", "pässwörd"])
def test_a_value_in_quotes_is_masked(value: str) -> None:
    redact = Redactor([value])
    for quoted in (repr(value), json.dumps(value), json.dumps(value, ensure_ascii=False)):
        assert redact(quoted)[1:-1] == "[REDACTED]", quoted
    both_kinds = repr(f"' and \" before {value}")
    assert redact(both_kinds).endswith("before [REDACTED]'"), both_kinds
