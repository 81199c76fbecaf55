import asyncio

from servery_common.contracts.access import FindToken, Identity, TokenFound, TokenGrant
from servery_common.contracts.subjects import controller_find_token
from servery_common.messaging.testing import InMemoryBus
from servery_gateway.token_finder import MAX_OPEN, MAX_PER_MINUTE, UNKNOWN_SECONDS, TokenFinder

FOUND = TokenFound(
    grant=TokenGrant(token_sha256="new", principal_id="p"),
    identity=Identity(principal_id="p", user_name="ann", workspace_id="1"),
)


class Controller:
    """Knows the token ``new``; answers once ``open`` is set."""

    def __init__(self) -> None:
        self.now = 0.0
        self.asked: list[str] = []
        self.open = asyncio.Event()
        self.open.set()

    async def finder(self) -> TokenFinder:
        bus = InMemoryBus()
        await bus.serve(controller_find_token(), FindToken, self._answer)
        return TokenFinder(lambda: bus, lambda: self.now)

    async def _answer(self, question: FindToken) -> TokenFound:
        self.asked.append(question.token_sha256)
        await self.open.wait()
        return FOUND if question.token_sha256 == "new" else TokenFound()


def ask(token: str) -> FindToken:
    return FindToken(token_sha256=token)


async def test_a_new_token_is_found() -> None:
    assert await (await Controller().finder()).find(ask("new")) == FOUND


async def test_an_unknown_token_is_asked_about_once_a_second() -> None:
    controller = Controller()
    finder = await controller.finder()
    for _ in range(3):
        assert await finder.find(ask("x")) is None
    assert controller.asked == ["x"]
    controller.now = UNKNOWN_SECONDS
    await finder.find(ask("x"))
    assert controller.asked == ["x", "x"]


async def test_many_who_ask_about_one_token_are_one_question() -> None:
    controller = Controller()
    finder = await controller.finder()
    assert await asyncio.gather(*[finder.find(ask("new")) for _ in range(5)]) == [FOUND] * 5
    assert controller.asked == ["new"]


async def test_one_who_leaves_does_not_take_the_answer_from_others() -> None:
    controller = Controller()
    controller.open.clear()
    finder = await controller.finder()
    leaving = asyncio.create_task(finder.find(ask("new")))
    staying = asyncio.create_task(finder.find(ask("new")))
    await asyncio.sleep(0)
    leaving.cancel()
    controller.open.set()
    assert await staying == FOUND


async def test_a_flood_of_wrong_tokens_stays_within_bounds() -> None:
    controller = Controller()
    finder = await controller.finder()
    controller.open.clear()
    waiting = [asyncio.create_task(finder.find(ask(f"a{n}"))) for n in range(2 * MAX_OPEN)]
    await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
    assert len(controller.asked) == MAX_OPEN
    controller.open.set()
    await asyncio.gather(*waiting)
    for n in range(MAX_PER_MINUTE):
        await finder.find(ask(f"b{n}"))
    assert len(controller.asked) == MAX_PER_MINUTE


async def test_without_a_connection_nothing_is_known() -> None:
    bus = InMemoryBus()
    bus.fail()
    assert await TokenFinder(lambda: bus, lambda: 0.0).find(ask("new")) is None
    assert await TokenFinder(lambda: None, lambda: 0.0).find(ask("new")) is None
