import pytest
import typer

from servery_local.commands.quota import parse


def test_a_quota_is_written_as_its_name_and_a_number_or_default() -> None:
    assert parse("qps=3000") == ("qps", 3000)
    assert parse("qps=0") == ("qps", 0), "the API says why it is refused"
    assert parse("qps=default") == ("qps", None)
    assert parse("compute=64") == ("compute_slots", 64)
    assert parse("compute=default") == ("compute_slots", None)


@pytest.mark.parametrize(
    "setting",
    [
        "",
        "qps",
        "qps=",
        "3000",
        "qps=many",
        "qps=-1",
        "qps=1.5",
        "qps=nan",
        "qps=1_000",
        "QPS=1",
        "qps=\u0661",
        "compute",
        "compute=-1",
        "compute_slots=4",
        "memory=4",
    ],
)
def test_anything_else_is_refused_with_what_would_be_right(setting: str) -> None:
    with pytest.raises(typer.BadParameter, match=r"qps=N .* compute=N"):
        parse(setting)
