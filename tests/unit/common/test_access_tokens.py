import pytest

from servery_common.access_tokens import fingerprint, generate, is_well_formed


def test_tokens_differ_and_are_recognised():
    first, second = generate(), generate()
    assert first != second
    assert first.startswith("dapi")
    assert is_well_formed(first.encode())


def test_a_token_that_was_cut_off_is_recognised():
    token = generate().encode()
    assert not any(is_well_formed(token[:length]) for length in range(len(token)))


def test_a_token_with_one_wrong_digit_is_recognised():
    token = generate()
    for place in range(4, len(token)):
        wrong = "0" if token[place] != "0" else "1"
        assert not is_well_formed((token[:place] + wrong + token[place + 1 :]).encode())


@pytest.mark.parametrize("token", [b"", b"dapi" + b"0" * 32, b"\xff" * 44, b"eyJhbGciOi.J9.x"])
def test_other_tokens_are_not_taken_for_ours(token: bytes):
    assert not is_well_formed(token)


def test_a_fingerprint_is_the_sha256():
    assert fingerprint(b"abc").startswith("ba7816bf")
