import pytest

from servery_common.contracts.routes import RateLimit
from servery_common.errors import InvalidParameter
from servery_controller.domain.endpoint import EmailNotifications
from servery_controller.domain.settings_rules import (
    MAX_RECIPIENTS,
    MAX_TAGS,
    check_email_notifications,
    check_rate_limits,
    check_tags,
    check_texts,
    merge_tags,
)


def test_adding_a_tag_that_is_there_gives_it_the_new_value_and_keeps_the_order():
    present = (("team", "a"), ("stage", "dev"))
    assert merge_tags(present, [("team", "b"), ("cost", "")], []) == (
        ("team", "b"),
        ("stage", "dev"),
        ("cost", ""),
    )


def test_deleting_a_tag_that_is_not_there_changes_nothing():
    assert merge_tags((("team", "a"),), [], ["other"]) == (("team", "a"),)
    assert merge_tags((("team", "a"),), [], ["team"]) == ()


def test_a_key_is_not_added_and_deleted_at_once():
    with pytest.raises(InvalidParameter, match="both add_tags and delete_tags"):
        merge_tags((), [("team", "a")], ["team"])


@pytest.mark.parametrize(
    ("tags", "said"),
    [
        ([("", "v")], "empty key"),
        ([("k" * 10_000, "v")], "longer than 127 bytes"),
        ([("ä" * 64, "v")], "longer than 127 bytes"),
        ([("k", "v" * 256)], "longer than 255 bytes"),
        ([("k", "a"), ("k", "b")], "given twice"),
        ([(f"k{i}", "") for i in range(MAX_TAGS + 1)], f"at most {MAX_TAGS} tags"),
    ],
)
def test_tags_beyond_a_limit_are_refused_with_the_limit(tags, said):
    with pytest.raises(InvalidParameter, match=said) as refused:
        check_tags(tags)
    assert len(refused.value.message) < 400, "a long value is cut in the message"


def test_tags_are_counted_after_the_change():
    full = tuple((f"k{i}", "") for i in range(MAX_TAGS))
    assert len(merge_tags(full, [("new", "")], ["k0"])) == MAX_TAGS
    with pytest.raises(InvalidParameter):
        merge_tags(full, [("new", "")], [])


def test_a_rate_limit_of_zero_is_a_limit():
    limits = (RateLimit(key="endpoint", calls=0), RateLimit(key="user", calls=5))
    assert check_rate_limits(limits) == limits


@pytest.mark.parametrize(
    "limits",
    [
        (RateLimit(calls=-1),),
        (RateLimit(calls=2**31),),
        (RateLimit(calls=1), RateLimit(calls=2)),
        (RateLimit(key="user", calls=1), RateLimit(key="user", calls=1)),
    ],
)
def test_negative_and_repeated_rate_limits_are_refused(limits):
    with pytest.raises(InvalidParameter, match="rate_limits"):
        check_rate_limits(limits)


def test_a_recipient_is_told_once():
    wanted = EmailNotifications(("ann@example.com", "ann@example.com"), ("ops@corp.internal",))
    assert check_email_notifications(wanted) == EmailNotifications(
        ("ann@example.com",), ("ops@corp.internal",)
    )


@pytest.mark.parametrize(
    "address", ["", "ann", "ann@", "Ann <ann@example.com>", "a@b.c\r\nBcc: everyone@example.com", "a@b@c.de"]
)
def test_what_is_no_address_is_refused(address):
    with pytest.raises(InvalidParameter, match="on_update_failure"):
        check_email_notifications(EmailNotifications(on_update_failure=(address,)))


def test_no_more_recipients_than_a_mail_server_takes():
    many = tuple(f"u{i}@example.com" for i in range(MAX_RECIPIENTS + 1))
    with pytest.raises(InvalidParameter, match=f"at most {MAX_RECIPIENTS}"):
        check_email_notifications(EmailNotifications(on_update_success=many))


def test_long_texts_are_refused_by_name():
    with pytest.raises(InvalidParameter, match="description"):
        check_texts("d" * 5000, None)
    with pytest.raises(InvalidParameter, match="budget_policy_id"):
        check_texts("", "b" * 300)
