"""What of a model's files is read from the disk."""

from pathlib import Path

import pytest

from servery_builder.artifacts.model_files import LONGEST_FILE_BYTES, read_within
from servery_builder.domain.build import BuildError
from servery_builder.files import hash_path


@pytest.fixture
def model(tmp_path: Path) -> Path:
    (tmp_path / "model").mkdir()
    return tmp_path / "model"


def test_a_text_file_of_the_model_is_read(model: Path) -> None:
    (model / "conda.yaml").write_text("a: é")
    assert read_within(model, model / "conda.yaml") == "a: é"
    with pytest.raises(FileNotFoundError):
        read_within(model, model / "absent.yaml")


@pytest.mark.parametrize("target", ["/dev/zero", "../secret.yaml"])
def test_a_link_out_of_the_model_is_refused(model: Path, target: str) -> None:
    (model.parent / "secret.yaml").write_text("secret")
    (model / "conda.yaml").symlink_to(target)
    with pytest.raises(BuildError, match="link to a file outside the model"):
        read_within(model, model / "conda.yaml")


def test_what_is_no_short_text_file_is_refused(model: Path) -> None:
    (model / "long.yaml").write_bytes(b"a" * (LONGEST_FILE_BYTES + 1))
    (model / "binary.yaml").write_bytes(b"\xff\xfe")
    (model / "folder.yaml").mkdir()
    for name, why in {"long": "longer than 4 MiB", "binary": "UTF-8", "folder": "not a file"}.items():
        with pytest.raises(BuildError, match=why):
            read_within(model, model / f"{name}.yaml")


def test_a_device_is_no_file_to_install() -> None:
    with pytest.raises(FileNotFoundError):
        hash_path(Path("/dev/zero"))
