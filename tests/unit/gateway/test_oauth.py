import base64

import pytest

from servery_gateway.oauth import ClientCredentials, OAuthError, parse

FORM = {b"content-type": b"application/x-www-form-urlencoded; charset=utf-8"}


def with_basic(text: str) -> dict[bytes, bytes]:
    return {**FORM, b"authorization": b"Basic " + base64.b64encode(text.encode())}


def test_a_client_may_send_its_secret_in_the_header_or_in_the_form() -> None:
    wanted = ClientCredentials("id", "secret", "all-apis")
    grant = b"grant_type=client_credentials&scope=all-apis"
    assert parse(grant, with_basic("id:secret")) == wanted
    assert parse(grant + b"&client_id=id&client_secret=secret", FORM) == wanted
    assert parse(grant + b"&client_id=id", with_basic("id:secret")) == wanted


def test_what_the_header_holds_is_form_encoded() -> None:
    assert parse(b"grant_type=client_credentials", with_basic("a%3Ab:s+%2B")) == ClientCredentials(
        "a:b", "s +", ""
    )


@pytest.mark.parametrize(
    ("content", "headers", "status", "code"),
    [
        (b"grant_type=client_credentials", {}, 400, "invalid_request"),
        (b"{}", {b"content-type": b"application/json"}, 400, "invalid_request"),
        (b"", FORM, 400, "invalid_request"),
        (b"grant_type=client_credentials&grant_type=client_credentials", FORM, 400, "invalid_request"),
        (b"grant_type=\xff", FORM, 400, "invalid_request"),
        (b"grant_type=%ff", FORM, 400, "invalid_request"),
        (b"&".join(b"a%d=1" % n for n in range(50)), FORM, 400, "invalid_request"),
        (b"grant_type=client_credentials&client_secret=s", with_basic("id:s"), 400, "invalid_request"),
        (b"grant_type=authorization_code&code=x", with_basic("id:s"), 400, "unsupported_grant_type"),
        (b"grant_type=client_credentials", FORM, 401, "invalid_client"),
        (b"grant_type=client_credentials&client_id=id", FORM, 401, "invalid_client"),
        (b"grant_type=client_credentials", with_basic("id:"), 401, "invalid_client"),
        (b"grant_type=client_credentials", with_basic("id"), 401, "invalid_client"),
        (b"grant_type=client_credentials", with_basic("id:%ff"), 401, "invalid_client"),
        (b"grant_type=client_credentials", {**FORM, b"authorization": b"Bearer x"}, 401, "invalid_client"),
    ],
)
def test_a_bad_request_is_refused_in_the_words_of_the_rfc(
    content: bytes, headers: dict[bytes, bytes], status: int, code: str
) -> None:
    with pytest.raises(OAuthError) as refused:
        parse(content, headers)
    answer = refused.value.answer
    assert answer.status == status
    assert f'"error":"{code}"'.encode() in answer.body
    assert (b"cache-control", b"no-store") in answer.headers
    assert (dict(answer.headers).get(b"www-authenticate") is not None) == (status == 401)
