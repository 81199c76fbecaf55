import base64
import hashlib

import pytest

from servery_common.contracts.access import Identity
from servery_common.errors import Unauthenticated
from servery_gateway.auth import Authenticator, token_of


def someone(token: str, expires_at_ms: int | None = None) -> dict[str, Identity]:
    digest = hashlib.sha256(token.encode()).hexdigest()
    return {
        digest: Identity(token_sha256=digest, user_name="ann", workspace_id="1", expires_at_ms=expires_at_ms)
    }


def basic(text: str) -> bytes:
    return b"Basic " + base64.b64encode(text.encode())


def test_a_token_is_found_in_both_forms() -> None:
    assert token_of(b"Bearer abc") == b"abc"
    assert token_of(b"BEARER  abc ") == b"abc"
    assert token_of(basic("token:a:b")) == b"a:b"


@pytest.mark.parametrize(
    "header",
    [
        b"",
        b"Bearer",
        b"Bearer ",
        b"abc",
        b"Digest abc",
        basic("ann:abc"),
        basic("token:"),
        b"Basic %",
        b"Basic a",
    ],
)
def test_anything_else_holds_no_token(header: bytes) -> None:
    assert token_of(header) is None


def test_a_token_expires_also_after_it_was_seen() -> None:
    now = 1.0
    authenticator = Authenticator(now=lambda: now)
    authenticator.update(someone("abc", expires_at_ms=2000))
    assert authenticator.authenticate(b"Bearer abc").user_name == "ann"
    now = 2.0
    with pytest.raises(Unauthenticated):
        authenticator.authenticate(b"Bearer abc")


def test_a_revoked_token_is_forgotten_with_the_snapshot() -> None:
    authenticator = Authenticator()
    authenticator.update(someone("abc"))
    authenticator.authenticate(b"Bearer abc")
    authenticator.update(someone("other"))
    with pytest.raises(Unauthenticated):
        authenticator.authenticate(b"Bearer abc")


def test_missing_and_unknown_tokens_are_answered_alike() -> None:
    authenticator = Authenticator()
    messages = set()
    for header in (None, b"Bearer x", b"junk"):
        with pytest.raises(Unauthenticated) as caught:
            authenticator.authenticate(header)
        messages.add(caught.value.message)
    assert len(messages) == 1
