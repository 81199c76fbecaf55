"""A token is kept until half of its life is over, and longer when there is no new one."""

from servery_common.contracts import subjects
from servery_common.contracts.access import IssueModelToken, ModelTokenIssued
from servery_common.errors import Unavailable
from servery_common.messaging.testing import InMemoryBus
from servery_worker.model_token import ModelTokens


class Issuer:
    """A controller that issues tokens of 100 seconds, or is away, at a time the test sets."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.issued: list[str] = []
        self.away = False

    async def tokens(self) -> ModelTokens:
        bus = InMemoryBus()
        await bus.serve(subjects.controller_issue_model_token(), IssueModelToken, self._issue)
        return ModelTokens(bus, lambda: self.now)

    async def _issue(self, request: IssueModelToken) -> ModelTokenIssued:
        if self.away:
            raise Unavailable("The controller is away.")
        self.issued.append(request.served_entity_id)
        return ModelTokenIssued(
            token=f"t{len(self.issued)}", expires_at_ms=int((self.now + 100) * 1000), host="http://gateway"
        )


async def values(tokens: ModelTokens, *entities: str) -> list[str | None]:
    found = [await tokens.get(entity) for entity in entities]
    return [token.value if token else None for token in found]


async def test_runners_of_one_served_entity_share_a_token_until_it_is_due():
    issuer = Issuer()
    tokens = await issuer.tokens()
    assert await values(tokens, "a", "a", "b") == ["t1", "t1", "t2"]
    issuer.now += 49
    assert await values(tokens, "a") == ["t1"]
    issuer.now += 1
    assert await values(tokens, "a") == ["t3"]
    assert issuer.issued == ["a", "b", "a"]


async def test_without_a_controller_the_last_token_is_used_until_it_expires():
    issuer = Issuer()
    tokens = await issuer.tokens()
    await tokens.get("a")
    issuer.away = True
    issuer.now += 99
    assert await values(tokens, "a", "b") == ["t1", None]
    issuer.now += 1
    assert await values(tokens, "a") == [None]
    issuer.away = False
    assert await values(tokens, "a") == ["t2"]
