import pytest
import typer

from servery_local.commands.quota import parse


def test_a_quota_is_written_as_qps_and_a_number_or_default() -> None:
    assert parse("qps=3000") == 3000
    assert parse("qps=0") == 0, "the API says why it is refused"
    assert parse("qps=default") is None


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
    ],
)
def test_anything_else_is_refused_with_what_would_be_right(setting: str) -> None:
    with pytest.raises(typer.BadParameter, match="qps=N"):
        parse(setting)
