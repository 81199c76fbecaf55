"""Which of two networks of one name is the one that counts."""

from types import SimpleNamespace

from servery_controller.compute.replica_networks import made_at


def test_the_engine_leaves_zeros_out_and_the_older_is_the_older_nevertheless() -> None:
    older, newer = (
        SimpleNamespace(attrs={"Created": f"2026-01-02T03:04:05{fraction}Z"})
        for fraction in (".1", ".123456789")
    )
    assert made_at(older) < made_at(newer)
    assert made_at(SimpleNamespace(attrs={"Created": "2026-01-02T03:04:05Z"})) < made_at(older)
