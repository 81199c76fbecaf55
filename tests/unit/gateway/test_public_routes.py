import json

import jwt
import pytest
from tests.unit.gateway.signing import Signer

from servery_common.contracts.access import Identity, SigningKey
from servery_common.errors import BadRequest, NotImplementedByServery
from servery_gateway.http import Answer
from servery_gateway.public_routes import MAX_ADDRESSES, PublicRoutes
from servery_gateway.routing_table import Snapshot

CONFIG = "/.well-known/databricks-config"
METADATA = "/oidc/.well-known/oauth-authorization-server"
SIGNER = Signer("k9")


def routes(why_not_ready: str | None = None, keys: dict[str, SigningKey] | None = None) -> PublicRoutes:
    public = PublicRoutes(lambda: why_not_ready)
    public.update(Snapshot(identities=of_workspaces("7", "7"), signing_keys=keys or {}))
    return public


def of_workspaces(*workspace_ids: str) -> dict[str, Identity]:
    return {
        f"p{n}": Identity(principal_id=f"p{n}", user_name=f"u{n}", workspace_id=workspace_id)
        for n, workspace_id in enumerate(workspace_ids)
    }


def get(public: PublicRoutes, path: str, host: bytes = b"serve.example:80", scheme: str = "http") -> Answer:
    answer = public.answer({"scheme": scheme, "method": "GET"}, path, {b"host": host})
    assert answer is not None
    return answer


def test_clients_are_told_where_they_are() -> None:
    public = routes()
    assert json.loads(get(public, CONFIG).body) == {
        "oidc_endpoint": "http://serve.example:80/oidc",
        "workspace_id": "7",
        "cloud": "AWS",
    }
    secure = json.loads(get(public, CONFIG, scheme="https").body)
    assert secure["oidc_endpoint"] == "https://serve.example:80/oidc"
    metadata = json.loads(get(public, METADATA).body)
    assert metadata["token_endpoint"] == "http://serve.example:80/oidc/v1/token"
    assert get(public, "/oidc/.well-known/openid-configuration") == get(public, METADATA)


def test_a_workspace_is_named_only_while_there_is_no_other() -> None:
    public = PublicRoutes(lambda: None)
    assert "workspace_id" not in json.loads(get(public, CONFIG).body)
    public.update(Snapshot(identities=of_workspaces("8")))
    assert json.loads(get(public, CONFIG).body)["workspace_id"] == "8"
    public.update(Snapshot(identities=of_workspaces("8", "9")))
    assert "workspace_id" not in json.loads(get(public, CONFIG).body)


def test_the_config_is_built_once_per_address_and_kept_within_bounds() -> None:
    public = routes()
    first = get(public, CONFIG)
    assert get(public, CONFIG) is first
    for n in range(3 * MAX_ADDRESSES):
        get(public, CONFIG, b"h%d" % n)
    assert len(public._configs) <= MAX_ADDRESSES
    assert get(public, CONFIG) == first


@pytest.mark.parametrize("host", [b"", b'a"b', b"a/b", b"a b", b"x@y", b"\xff", b"a" * 256])
def test_a_host_header_that_is_no_host_is_told_to_nobody(host: bytes) -> None:
    assert json.loads(get(routes(), CONFIG, host).body) == {"workspace_id": "7", "cloud": "AWS"}
    with pytest.raises(BadRequest):
        get(routes(), METADATA, host)


def test_answers_that_do_not_change_may_be_cached_and_readiness_may_not() -> None:
    for path in (CONFIG, METADATA, "/oidc/.well-known/jwks.json"):
        assert dict(get(routes(), path).headers)[b"cache-control"].startswith(b"public, max-age=")
    assert get(routes("not connected"), "/readyz").status == 503
    assert get(routes(), "/readyz").headers == ()


def test_others_can_check_tokens_with_the_published_keys() -> None:
    broken = SigningKey(key_id="broken", public_key="?")
    answer = get(routes(keys={"k9": SIGNER.key, "broken": broken}), "/oidc/.well-known/jwks.json")
    (only,) = jwt.PyJWKSet.from_json(answer.body.decode()).keys
    token = SIGNER.token("p1")
    assert jwt.get_unverified_header(token)["kid"] == only.key_id
    assert jwt.decode(token, only, algorithms=["EdDSA"], audience="servery")["sub"] == "p1"


def test_signing_in_by_browser_says_what_to_do_instead() -> None:
    with pytest.raises(NotImplementedByServery, match="client_credentials"):
        get(routes(), "/oidc/v1/authorize")


def test_other_paths_and_methods_are_not_public() -> None:
    public = routes()
    assert public.answer({"scheme": "http", "method": "GET"}, "/oidc", {}) is None
    assert public.answer({"scheme": "http", "method": "HEAD"}, CONFIG, {}) is not None
    with pytest.raises(BadRequest):
        public.answer({"scheme": "http", "method": "POST"}, CONFIG, {})
