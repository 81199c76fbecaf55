import re
from pathlib import Path

from servery_local.data_directory import LONGEST_SOCKET_PATH, Secrets, fits_socket


def test_the_admin_token_looks_like_a_personal_access_token() -> None:
    assert re.fullmatch(r"dapi[0-9a-f]{32}", Secrets.generate().admin_token)


def test_generated_secrets_differ() -> None:
    assert Secrets.generate() != Secrets.generate()


def test_the_longest_socket_name_decides_whether_a_directory_is_short_enough() -> None:
    room = LONGEST_SOCKET_PATH - len("/postgres/.s.PGSQL.5432")
    assert fits_socket(Path("/" + "x" * (room - 1)))
    assert not fits_socket(Path("/" + "x" * room))


def test_the_length_of_a_path_is_counted_in_bytes() -> None:
    room = LONGEST_SOCKET_PATH - len("/postgres/.s.PGSQL.5432")
    assert not fits_socket(Path("/" + "é" * (room - 1)))
