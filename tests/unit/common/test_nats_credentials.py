from datetime import UTC, datetime, timedelta

import nkeys
import pytest

from servery_common.nats_credentials import (
    Authority,
    KeyPair,
    Lifetime,
    is_user_key,
    lifetime_of,
    make_user,
    make_user_key,
)

NOW = datetime(2026, 3, 1, tzinfo=UTC)
ACCOUNT = Authority.make().account


def test_a_token_says_until_when_it_is_good() -> None:
    creds = make_user(ACCOUNT, "r1", None, NOW, timedelta(hours=24))
    lifetime = lifetime_of(creds)
    assert lifetime == Lifetime(NOW.timestamp(), NOW.timestamp() + 86400)
    assert lifetime.seconds == 86400
    assert lifetime_of(make_user(ACCOUNT, "gateway", None, NOW)) is None


@pytest.mark.parametrize("text", ["", "a.b.c", "-----\nnonsense\n------END", "-----\na.b.c\n------END"])
def test_what_is_no_creds_file_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"not a \.creds file"):
        lifetime_of(text)


def test_a_users_public_key_is_told_from_everything_else() -> None:
    user = make_user_key()
    assert is_user_key(user.public)
    spoilt = user.public[:-1] + ("A" if user.public[-1] != "A" else "B")
    others = [KeyPair.make(kind).public for kind in (nkeys.PREFIX_BYTE_ACCOUNT, nkeys.PREFIX_BYTE_OPERATOR)]
    for other in (
        user.seed,
        spoilt,
        *others,
        "",
        "U",
        "UABC",
        user.public.lower(),
        "Ä" * 56,
        user.public * 2,
    ):
        assert not is_user_key(other), other
