import base64
import hashlib
import hmac
import json

import pytest
from tests.unit.gateway.signing import Signer

from servery_common.contracts.access import SigningKey
from servery_gateway.credentials import is_signed, key_id_of, public_key, token_of, verify


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
        basic("token"),
        b"Basic %",
        b"Basic a",
    ],
)
def test_anything_else_holds_no_token(header: bytes) -> None:
    assert token_of(header) is None


def test_a_token_signed_with_the_key_names_its_principal_and_its_end() -> None:
    signer = Signer("k7")
    token = signer.token("p1", exp=2000000000).encode()
    key = public_key(signer.key)
    assert key is not None
    assert is_signed(token)
    assert not is_signed(b"dapi123")
    assert key_id_of(token) == "k7"
    assert verify(token, key) == ("p1", 2000000000, "all-apis", None)


@pytest.mark.parametrize(
    "claims",
    [
        {"aud": "other"},
        {"aud": None},
        {"exp": None},
        {"sub": None},
        {"scope": None},
        {"scope": "sql"},
        {"scope": "model"},
    ],
)
def test_a_token_that_lacks_a_claim_or_is_for_others_is_refused(claims: dict) -> None:
    signer = Signer()
    key = public_key(signer.key)
    assert key is not None
    assert verify(signer.token(**{"subject": "p1", **claims}).encode(), key) is None


def test_a_models_token_says_so_and_names_the_endpoint() -> None:
    signer = Signer()
    key = public_key(signer.key)
    assert key is not None
    token = signer.token("p1", exp=2000000000, scope="model", endpoint_id="e1").encode()
    assert verify(token, key) == ("p1", 2000000000, "model", "e1")


def test_a_token_of_a_clock_that_is_ahead_is_taken() -> None:
    signer = Signer()
    key = public_key(signer.key)
    assert key is not None
    assert verify(signer.token("p1", iat=4000000000, exp=4000003600).encode(), key) is not None


def test_a_forged_token_is_refused() -> None:
    signer = Signer()
    key = public_key(signer.key)
    assert key is not None
    head, payload, signature = signer.token("p1").split(".")
    others = Signer().token("admin").split(".")

    def part(value: dict) -> str:
        return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()

    unsigned = f"{part({'alg': 'none', 'kid': 'k1'})}.{payload}."
    # The classic confusion: the public key taken for the secret of a symmetric algorithm.
    symmetric = f"{part({'alg': 'HS256', 'kid': 'k1'})}.{payload}"
    digest = hmac.digest(signer.key.public_key.encode(), symmetric.encode(), hashlib.sha256)
    symmetric += "." + base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
    for forged in (
        unsigned,
        symmetric,
        f"{head}.{others[1]}.{signature}",
        ".".join(others),
        f"{head}.{payload}.",
        "..",
        "a.b.c",
        "\xff.\xff.\xff",
    ):
        assert verify(forged.encode("latin-1"), key) is None, forged
        key_id_of(forged.encode("latin-1"))  # raises nothing


def test_a_key_that_cannot_be_read_is_left_out() -> None:
    assert public_key(SigningKey(key_id="k", public_key="not a key")) is None
