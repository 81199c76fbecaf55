from dataclasses import replace

import pytest
from tests.unit.gateway.signing import Signer

from servery_common import access_tokens
from servery_common.contracts.access import FindToken, Identity, TokenFound, TokenGrant
from servery_common.contracts.routes import EndpointRoute
from servery_common.contracts.subjects import controller_find_token
from servery_common.errors import Unauthenticated
from servery_common.messaging.testing import InMemoryBus
from servery_gateway.auth import FOUND_SECONDS, Authenticator
from servery_gateway.routing_table import Snapshot
from servery_gateway.token_finder import TokenFinder

ANN = Identity(principal_id="p1", user_name="ann", workspace_id="1")
SIGNER = Signer()


def granted(token: str, expires_at_ms: int | None = None) -> TokenGrant:
    digest = access_tokens.fingerprint(token.encode())
    return TokenGrant(token_sha256=digest, principal_id="p1", expires_at_ms=expires_at_ms)


def knowing(*grants: TokenGrant) -> Snapshot:
    return Snapshot(
        identities={"p1": ANN},
        tokens={grant.token_sha256: grant for grant in grants},
        signing_keys={SIGNER.key.key_id: SIGNER.key},
    )


class Desk:
    """An authenticator, its clock, and the controller it may ask."""

    def __init__(self, snapshot: Snapshot | None = None) -> None:
        self.now = 1000.0
        self.bus = InMemoryBus()
        self.asked: list[str] = []
        self.answer = TokenFound()
        finder = TokenFinder(lambda: self.bus, lambda: self.now)
        self.authenticator = Authenticator(finder, lambda: self.now)
        self.authenticator.update(snapshot or Snapshot())

    async def serve(self) -> "Desk":
        async def find(question: FindToken) -> TokenFound:
            self.asked.append(question.token_sha256)
            return self.answer

        await self.bus.serve(controller_find_token(), FindToken, find)
        return self

    async def who(self, token: str) -> Identity:
        return (await self.authenticator.authenticate(f"Bearer {token}".encode())).identity

    async def refuses(self, token: str) -> str:
        with pytest.raises(Unauthenticated) as caught:
            await self.who(token)
        return caught.value.message


async def test_a_token_expires_also_after_it_was_seen() -> None:
    desk = Desk(knowing(granted("abc", expires_at_ms=1_001_000)))
    assert await desk.who("abc") == ANN
    desk.now = 1001.0
    await desk.refuses("abc")


async def test_a_revoked_token_is_forgotten_with_the_snapshot() -> None:
    desk = Desk(knowing(granted("abc")))
    await desk.who("abc")
    desk.authenticator.update(knowing(granted("other")))
    await desk.refuses("abc")


async def test_a_principal_that_is_gone_takes_its_tokens_along() -> None:
    desk = Desk(knowing(granted("abc")))
    signed = SIGNER.token("p1")
    assert await desk.who("abc") == await desk.who(signed) == ANN
    desk.authenticator.update(Snapshot(tokens=knowing(granted("abc")).tokens))
    await desk.refuses("abc")
    await desk.refuses(signed)


async def test_a_signed_token_is_valid_until_it_expires() -> None:
    desk = Desk(knowing())
    token = SIGNER.token("p1", exp=1060)
    assert await desk.who(token) == ANN
    desk.now = 1060.0
    await desk.refuses(token)
    await desk.refuses(SIGNER.token("p1", exp=1059))


async def test_an_administrator_may_choose_a_token_that_looks_signed() -> None:
    desk = Desk(knowing(granted("my.own.token")))
    assert await desk.who("my.own.token") == ANN


async def test_a_signed_token_ends_with_its_key() -> None:
    desk = Desk(knowing())
    token = SIGNER.token("p1")
    await desk.who(token)
    desk.authenticator.update(Snapshot(identities={"p1": ANN}))
    await desk.refuses(token)


def serving(workspace_id: str = "1") -> Snapshot:
    route = EndpointRoute(
        endpoint_id="e1", workspace_id=workspace_id, name="iris", created_at_ms=1, status="serving"
    )
    return replace(knowing(granted("abc")), routes={"e1": route})


async def test_the_scope_of_a_credential_is_known() -> None:
    desk = Desk(serving())
    for token, scope in (
        ("abc", "all-apis"),
        (SIGNER.token("p1"), "all-apis"),
        (SIGNER.token("p1", scope="model", endpoint_id="e1"), "model"),
    ):
        for _ in range(2):
            assert await desk.authenticator.authenticate(f"Bearer {token}".encode()) == (ANN, scope)


async def test_a_models_token_ends_with_its_endpoint() -> None:
    desk = Desk(serving())
    token = SIGNER.token("p1", scope="model", endpoint_id="e1")
    await desk.who(token)
    desk.authenticator.update(replace(serving(), routes={}))
    await desk.refuses(token)
    desk.authenticator.update(serving(workspace_id="2"))
    await desk.refuses(token)


async def test_whoever_is_known_costs_the_controller_nothing() -> None:
    desk = await Desk(knowing(granted("abc"), granted("old", expires_at_ms=1))).serve()
    for _ in range(3):
        await desk.who("abc")
        await desk.who(SIGNER.token("p1"))
    await desk.refuses(Signer("unknown").token("p1"))
    await desk.refuses(SIGNER.token("nobody"))
    assert desk.asked == []


async def test_a_token_that_is_news_is_asked_about_and_believed_for_a_moment_only() -> None:
    desk = await Desk().serve()
    new = access_tokens.generate()
    grant = granted(new)
    desk.answer = TokenFound(grant=grant, identity=ANN)
    assert await desk.who(new) == await desk.who(new) == ANN
    assert desk.asked == [grant.token_sha256]
    desk.answer = TokenFound()  # revoked before any news of it came
    desk.now += FOUND_SECONDS
    await desk.refuses(new)
    assert desk.asked == [grant.token_sha256] * 2


async def test_what_no_controller_made_is_not_asked_about() -> None:
    desk = await Desk().serve()
    for token in ("new", "dapi" + "0" * 40, access_tokens.generate()[:-1], access_tokens.generate() + "0"):
        await desk.refuses(token)
    assert desk.asked == []


async def test_an_expired_token_is_refused_also_when_the_controller_knows_it() -> None:
    desk = await Desk().serve()
    old = access_tokens.generate()
    desk.answer = TokenFound(grant=granted(old, expires_at_ms=999_000), identity=ANN)
    await desk.refuses(old)
    assert len(desk.asked) == 1


async def test_missing_unknown_and_unanswered_tokens_are_refused_alike() -> None:
    desk = Desk(knowing())
    messages = {await desk.refuses("x"), await desk.refuses("a.b.c"), await desk.refuses("")}
    desk.bus.fail()
    messages.add(await desk.refuses(access_tokens.generate()))
    with pytest.raises(Unauthenticated) as caught:
        await desk.authenticator.authenticate(None)
    messages.add(caught.value.message)
    assert len(messages) == 1
