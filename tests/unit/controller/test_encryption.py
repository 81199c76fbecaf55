import base64

import pytest

from servery_controller.encryption import Cipher

KEY = base64.b64encode(bytes(range(32))).decode()


def test_a_value_is_opened_where_it_was_sealed_for_and_nowhere_else() -> None:
    cipher = Cipher(KEY)
    sealed = cipher.seal(b"hunter2", "scope/a")
    assert b"hunter2" not in sealed
    assert cipher.open(sealed, "scope/a") == b"hunter2"
    with pytest.raises(ValueError, match="another place"):
        cipher.open(sealed, "scope/b")


def test_equal_values_do_not_look_alike() -> None:
    cipher = Cipher(KEY)
    assert cipher.seal(b"same", "x") != cipher.seal(b"same", "x")


def test_another_key_opens_nothing() -> None:
    sealed = Cipher(KEY).seal(b"hunter2", "x")
    with pytest.raises(ValueError, match="another encryption key"):
        Cipher(base64.b64encode(bytes(32)).decode()).open(sealed, "x")


@pytest.mark.parametrize("key", ["", "short", "%%%", base64.b64encode(bytes(31)).decode()])
def test_a_key_of_another_form_is_refused_by_its_name(key: str) -> None:
    with pytest.raises(ValueError, match="SERVERY_ENCRYPTION_KEY"):
        Cipher(key)
