from tests.messages import Ask

from servery_common.messaging.kv_view import View
from servery_common.messaging.port import KvChange

ONE = Ask(text="1")


def listed(view: View[Ask], incarnation: str, **values: int) -> list[KvChange[Ask]]:
    view.begin(incarnation)
    changes = [change for key, revision in values.items() for change in view.put(key, revision, ONE)]
    return changes + view.caught_up()


def kinds(changes: list[KvChange[Ask]]) -> list[tuple[str, str]]:
    return [(change.kind, change.key) for change in changes]


def test_the_first_listing_tells_everything() -> None:
    assert kinds(listed(View(), "i", a=1, b=2)) == [("put", "a"), ("put", "b"), ("caught_up", "")]


def test_a_second_listing_tells_only_what_changed() -> None:
    view = View[Ask]()
    listed(view, "i", a=1, b=2)
    assert kinds(listed(view, "i", a=1, b=3)) == [("put", "b"), ("caught_up", "")]


def test_a_key_that_vanished_from_the_same_bucket_was_deleted() -> None:
    view = View[Ask]()
    listed(view, "i", a=1, b=2)
    assert kinds(listed(view, "i", b=2)) == [("delete", "a"), ("caught_up", "")]


def test_a_listing_that_was_cut_short_deletes_nothing() -> None:
    view = View[Ask]()
    listed(view, "i", a=1, b=2)
    view.begin("i")
    assert kinds(listed(view, "i", a=1, b=2)) == [("caught_up", "")]


def test_keys_of_a_lost_bucket_are_missing_until_they_return_or_are_deleted() -> None:
    view = View[Ask]()
    listed(view, "i", a=1, b=2, c=3)
    changes = listed(view, "new")
    assert kinds(changes) == [("caught_up", "")]
    assert (changes[0].missing, changes[0].incarnation) == ({"a", "b", "c"}, "new")
    assert kinds(view.put("a", 1, ONE)) == [("put", "a")]
    assert kinds(view.delete("b", 2)) == [("delete", "b")]
    assert listed(view, "new", a=1)[-1].missing == {"c"}


def test_deleting_what_is_not_known_tells_nothing() -> None:
    view = View[Ask]()
    listed(view, "i", a=1)
    assert view.delete("b", 2) == []


def test_a_value_that_became_unreadable_does_not_delete_the_last_good_one() -> None:
    view = View[Ask]()
    listed(view, "i", a=1)
    view.begin("i")
    view.keep("a")
    assert kinds(view.caught_up()) == [("caught_up", "")]
