import ast
from pathlib import Path

import pytest

from servery_worker.overlay import content_hash, materialise, overlay_files


def test_the_overlay_holds_the_runner_and_frames_and_nothing_else():
    names = set(overlay_files())
    assert "servery_runner/__main__.py" in names
    assert {name for name in names if name.startswith("servery_common")} == {
        "servery_common/__init__.py",
        "servery_common/contracts/__init__.py",
        "servery_common/contracts/frames.py",
    }


@pytest.mark.parametrize("name", [name for name in overlay_files() if name.endswith(".py")])
def test_every_file_is_valid_in_the_oldest_python_a_model_may_have(name: str):
    ast.parse(overlay_files()[name], feature_version=(3, 9))


def test_other_content_gets_another_name():
    assert content_hash({"a": b"1"}) == content_hash({"a": b"1"})
    assert (
        len({content_hash(files) for files in ({"a": b"1"}, {"a": b"2"}, {"b": b"1"}, {"a": b"", "b": b"1"})})
        == 4
    )


def test_it_is_written_once_and_leaves_no_staging_behind(tmp_path: Path):
    first = materialise(tmp_path)
    assert materialise(tmp_path) == first
    assert list(first.parent.iterdir()) == [first]
    assert (first / "servery_runner" / "runner.py").read_bytes() == overlay_files()[
        "servery_runner/runner.py"
    ]
