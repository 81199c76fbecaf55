"""Who is told to be woken; the way there is in the integration tests of holding."""

from servery_common.contracts.routes import EndpointRoute, ServedEntityRoute
from servery_gateway.entity_pool import EndpointQueue, EntityPool
from servery_gateway.waking import AGAIN_SECONDS, Waker


def pool_at_zero() -> EntityPool:
    entity = ServedEntityRoute(served_entity_id="s", name="s", traffic_percentage=0, holds=True)
    route = EndpointRoute(
        endpoint_id="e", workspace_id="1", name="e", status="serving", served_entities=(entity,)
    )
    return EntityPool(route, entity, EndpointQueue(), 0.0, {})


def test_what_is_not_held_is_told_once_a_second() -> None:
    waker, pool = Waker(), pool_at_zero()
    waker.ask(pool, 0.0)
    assert waker.wanted.is_set()
    assert [(one.served_entity_id, one.held) for one in waker.held()] == [("s", 0)]
    assert waker.held() == ()
    waker.ask(pool, 0.5 * AGAIN_SECONDS)
    assert waker.held() == ()
    waker.ask(pool, AGAIN_SECONDS)
    assert len(waker.held()) == 1


def test_who_is_awake_meanwhile_is_not_woken() -> None:
    waker, pool = Waker(), pool_at_zero()
    waker.ask(pool, 0.0)
    pool.holds = False
    assert waker.held() == ()
