"""No secret passes into a log."""

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
