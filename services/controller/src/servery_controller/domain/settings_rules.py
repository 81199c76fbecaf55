"""Rules for what an endpoint is given beside its config: tags, rate limits, recipients of notifications. Pure.

Every rule raises ``InvalidParameter`` with a sentence that names the field, the value and what would be right.
"""

from collections.abc import Sequence

from email_validator import EmailNotValidError, validate_email

from servery_common.contracts.routes import RateLimit
from servery_common.errors import InvalidParameter
from servery_controller.domain.endpoint import EmailNotifications
from servery_controller.domain.endpoint_options import check_options

MAX_TAGS = 64
MAX_TAG_KEY_BYTES = 127
MAX_TAG_VALUE_BYTES = 255
MAX_DESCRIPTION_BYTES = 4096
MAX_BUDGET_POLICY_BYTES = 255
MAX_RECIPIENTS = 50
MAX_CALLS = 2**31 - 1

Tags = tuple[tuple[str, str], ...]


def merge_tags(present: Tags, add: Sequence[tuple[str, str]], delete: Sequence[str]) -> Tags:
    """Return the tags after a change: a key that is there gets the new value, a deleted one need not be there.

    Raises InvalidParameter for keys that repeat, are both added and deleted, or break a limit.
    """
    check_tags(add)
    both = sorted({key for key, _ in add} & set(delete))
    if both:
        raise InvalidParameter(f"The tag key {short(both[0])} is in both add_tags and delete_tags.")
    merged = {key: value for key, value in present if key not in delete} | dict(add)
    return check_tags(tuple(merged.items()))


def check_tags(tags: Sequence[tuple[str, str]]) -> Tags:
    """Return the tags. Raises InvalidParameter for keys that repeat, a broken limit, or a wrong option of Servery's."""
    if len(tags) > MAX_TAGS:
        raise InvalidParameter(f"An endpoint may have at most {MAX_TAGS} tags; these are {len(tags)}.")
    keys: set[str] = set()
    for key, value in tags:
        if not key:
            raise InvalidParameter("A tag has an empty key.")
        if len(key.encode()) > MAX_TAG_KEY_BYTES:
            raise InvalidParameter(
                f"The tag key {short(key)} is longer than {MAX_TAG_KEY_BYTES} bytes in UTF-8."
            )
        if len(value.encode()) > MAX_TAG_VALUE_BYTES:
            raise InvalidParameter(
                f"The value of the tag {short(key)} is longer than {MAX_TAG_VALUE_BYTES} bytes in UTF-8."
            )
        if key in keys:
            raise InvalidParameter(f"The tag key {short(key)} is given twice.")
        keys.add(key)
    check_options(tags)
    return tuple(tags)


def check_rate_limits(limits: Sequence[RateLimit]) -> tuple[RateLimit, ...]:
    """Return the limits. Raises InvalidParameter when one is negative or a key has two."""
    keys: set[str] = set()
    for limit in limits:
        if not 0 <= limit.calls <= MAX_CALLS:
            raise InvalidParameter(
                f"rate_limits: calls is {limit.calls}; give a number from 0 to {MAX_CALLS}."
            )
        if limit.key in keys:
            raise InvalidParameter(f"rate_limits: there are two limits with the key '{limit.key}'; give one.")
        keys.add(limit.key)
    return tuple(limits)


def check_email_notifications(wanted: EmailNotifications) -> EmailNotifications:
    """Return the recipients without repetitions. Raises InvalidParameter for what is no e-mail address."""
    return EmailNotifications(
        on_update_success=_recipients("on_update_success", wanted.on_update_success),
        on_update_failure=_recipients("on_update_failure", wanted.on_update_failure),
    )


def check_texts(description: str, budget_policy_id: str | None) -> None:
    """Raise InvalidParameter for texts that are too long to be kept."""
    for field, text, limit in (
        ("description", description, MAX_DESCRIPTION_BYTES),
        ("budget_policy_id", budget_policy_id or "", MAX_BUDGET_POLICY_BYTES),
    ):
        if len(text.encode()) > limit:
            raise InvalidParameter(f"{field} is longer than {limit} bytes in UTF-8.")


def _recipients(field: str, addresses: Sequence[str]) -> tuple[str, ...]:
    if len(addresses) > MAX_RECIPIENTS:
        raise InvalidParameter(
            f"email_notifications.{field} holds {len(addresses)} addresses; at most {MAX_RECIPIENTS} are allowed."
        )
    return tuple(dict.fromkeys(_address(field, address) for address in addresses))


def _address(field: str, address: str) -> str:
    try:
        # Addresses of a company's own network are as good as public ones; no name server is asked.
        found = validate_email(address, check_deliverability=False, globally_deliverable=False)
    except EmailNotValidError as error:
        raise InvalidParameter(
            f"email_notifications.{field}: {short(address)} is not an e-mail address. {error}"
        ) from None
    return found.normalized


def short(value: str) -> str:
    """Quote a caller's value, cut to a length that is fit for a message."""
    return repr(value if len(value) <= 100 else value[:100] + "…")
