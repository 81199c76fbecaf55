import os
import stat

import pytest

from servery_local.child import UnixUser
from servery_local.postgres_place import may_enter

USER = UnixUser(uid=1001, gid=2001)


def directory(mode: int, uid: int = 0, gid: int = 0) -> os.stat_result:
    return os.stat_result((stat.S_IFDIR | mode, 0, 0, 0, uid, gid, 0, 0, 0, 0))


@pytest.mark.parametrize(
    ("entered", "what"),
    [
        (directory(0o711), True),
        (directory(0o700), False),
        (directory(0o700, uid=1001), True),
        (directory(0o677, uid=1001), False),
        (directory(0o710, gid=2001), True),
        (directory(0o707, gid=2001), False),
        (directory(0o744), False),
    ],
)
def test_a_user_enters_where_the_mode_lets_it(entered: os.stat_result, what: bool) -> None:
    assert may_enter(USER, entered) is what
