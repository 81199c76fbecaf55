from datetime import UTC, datetime, timedelta

from servery_controller.access.signing import LEAD, TOKEN_LIFETIME, KeyPlan, plan_keys

NOW = datetime(2026, 1, 1, tzinfo=UTC)
MONTH = timedelta(days=30)


def key(name: str, age: timedelta, *, opens: bool = True) -> tuple[str, datetime, bool]:
    return name, NOW - age, opens


def test_without_a_key_one_is_made():
    assert plan_keys([], NOW, MONTH) == KeyPlan(None, needs_new=True, outdated=())


def test_the_first_key_signs_at_once():
    assert plan_keys([key("a", timedelta(0))], NOW, MONTH) == KeyPlan("a", needs_new=False, outdated=())


def test_after_a_month_a_new_key_is_made_and_the_old_one_signs_until_gateways_know_it():
    old = key("old", MONTH)
    assert plan_keys([old], NOW, MONTH) == KeyPlan("old", needs_new=True, outdated=())
    fresh = plan_keys([key("new", timedelta(0)), old], NOW, MONTH)
    assert fresh == KeyPlan("old", needs_new=False, outdated=())
    settled = plan_keys([key("new", LEAD), old], NOW, MONTH)
    assert settled == KeyPlan("new", needs_new=False, outdated=())


def test_an_old_key_stays_published_until_its_last_token_has_ended():
    old = key("old", MONTH)
    last_token_ends = LEAD + TOKEN_LIFETIME
    assert plan_keys([key("new", last_token_ends), old], NOW, MONTH).outdated == ()
    assert plan_keys([key("new", last_token_ends + LEAD), old], NOW, MONTH).outdated == ("old",)


def test_a_key_sealed_under_a_lost_encryption_key_is_replaced_at_once_and_still_published():
    lost = key("lost", timedelta(days=1), opens=False)
    assert plan_keys([lost], NOW, MONTH) == KeyPlan(None, needs_new=True, outdated=())
    assert plan_keys([key("new", timedelta(0)), lost], NOW, MONTH).sign_with == "new"
    assert plan_keys([key("new", timedelta(hours=2)), lost], NOW, MONTH).outdated == ("lost",)
