from pathlib import Path

import pytest

from servery_common.contracts.builds import Artifacts
from servery_worker.remembered import Remembered, WarmList, within


def environment(key: str, memory_bytes: int = 100) -> Remembered:
    made_of = Artifacts(model_path="m", environment_path="e", python="p", environment_key=key)
    return Remembered.of(made_of, ("sklearn",), memory_bytes)


def test_what_is_written_is_read_in_the_same_order(tmp_path: Path):
    written = [environment("b"), environment("a")]
    WarmList(tmp_path / "list.json").write(written)
    assert WarmList(tmp_path / "list.json").read() == written


@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b'[{"environment_key": "a"}]', b"\xff"])
def test_an_unreadable_list_is_an_empty_one(tmp_path: Path, content: bytes):
    path = tmp_path / "list.json"
    path.write_bytes(content)
    assert WarmList(path).read() == []


def test_no_list_is_an_empty_one_and_one_that_cannot_be_written_is_no_end(tmp_path: Path):
    assert WarmList(tmp_path / "list.json").read() == []
    WarmList(tmp_path / "missing" / "list.json").write([environment("a")])
    assert not (tmp_path / "missing").exists()


def test_the_same_list_is_not_written_again(tmp_path: Path):
    path = tmp_path / "list.json"
    warm = WarmList(path)
    warm.write([environment("a")])
    path.unlink()
    warm.write([environment("a")])
    assert not path.exists()
    warm.write([])
    assert warm.read() == []


def test_only_the_first_that_fit_are_restored():
    found = [environment("a", 200), environment("b", 200), environment("c", 50)]
    assert [one.environment_key for one in within(450, found)] == ["a", "b", "c"]
    assert [one.environment_key for one in within(399, found)] == ["a"]
    assert within(0, found) == []
