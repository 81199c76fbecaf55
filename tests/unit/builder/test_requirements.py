"""Requirement lines are read as pip reads them and kept inside the model."""

from pathlib import Path

import pytest

from servery_builder.domain.build import BuildError
from servery_builder.domain.requirements import Requirements, logical_lines, normalise, parse_requirements

MODEL = Path("/models/m")


def parse(lines: list[str], files: dict[str, str] | None = None) -> Requirements:
    def read(path: Path) -> str:
        try:
            return (files or {})[str(path.relative_to(MODEL))]
        except KeyError:
            raise FileNotFoundError(path) from None

    return parse_requirements(lines, model_dir=MODEL, read=read)


def test_included_files_are_flattened_and_constraints_kept_apart() -> None:
    found = parse(
        ["-r requirements.txt"],
        {
            "requirements.txt": "six\n--constraint=pins/c.txt\n-rmore.txt",
            "pins/c.txt": "a<2 # old",
            "more.txt": "b",
        },
    )
    assert found.lines == ("six", "b")
    assert found.constraints == ("a<2",)


def test_comments_blank_lines_and_continuations_are_joined() -> None:
    lines = ["# all", "", "six==1.16.0 \\", "  --hash=sha256:abc  # pinned", "git+https://host/x#egg=x"]
    assert list(logical_lines(lines)) == ["six==1.16.0 --hash=sha256:abc", "git+https://host/x#egg=x"]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Scikit_Learn == 1.5", "scikit-learn==1.5"),
        ("a>=1,<2", "a<2,>=1"),
        ("a [x, y]", "a[y,x]"),
        ("a; python_version<'3.12'", 'a ; python_version < "3.12"'),
    ],
)
def test_the_same_requirement_has_one_normal_form(one: str, other: str) -> None:
    assert normalise(one) == normalise(other)


def test_hashes_belong_to_the_normal_form() -> None:
    assert normalise("a==1 --hash=sha256:x") != normalise("a==1 --hash=sha256:y")


def test_local_wheels_and_folders_become_absolute_and_are_no_part_of_the_identity_by_path() -> None:
    found = parse(
        ["wheels/foo-1.0-py3-none-any.whl", "-e ./code[extra]", "bar @ file:bar-2-py3-none-any.whl"]
    )
    assert found.lines == (
        "/models/m/wheels/foo-1.0-py3-none-any.whl",
        "/models/m/code[extra]",
        "/models/m/bar-2-py3-none-any.whl",
    )
    assert [path.name for path in found.local_paths] == [
        "foo-1.0-py3-none-any.whl",
        "code",
        "bar-2-py3-none-any.whl",
    ]
    assert not [line for line in found.normalised if "/models" in line]
    assert found.names == {"foo", "bar"}


@pytest.mark.parametrize(
    "line", ["../other/x.whl", "/home/me/x.whl", "file:///home/me/x.whl", "-r ../../etc/passwd", "-e .."]
)
def test_nothing_outside_the_model_is_read_or_installed(line: str) -> None:
    with pytest.raises(BuildError, match="outside the model") as caught:
        parse([line])
    assert caught.value.failure.code == "ARTIFACT_MISSING"


@pytest.mark.parametrize(
    "line",
    [
        "--index-url file:///home/me/simple",
        "--extra-index-url=file:/srv",
        "--find-links file:///srv",
        "-f ../x",
    ],
)
def test_no_folder_outside_the_model_is_an_index(line: str) -> None:
    with pytest.raises(BuildError, match="outside the model"):
        parse([line])


@pytest.mark.parametrize(
    "line", ["--index-url https://elsewhere/simple", "-r more.txt", "-e ./code", "six @ file:///srv/six.whl"]
)
def test_a_constraints_file_sets_no_option_and_names_no_file(line: str) -> None:
    with pytest.raises(BuildError, match="The model's constraints contain") as caught:
        parse(["-c pins.txt"], {"pins.txt": f"a<2\n{line}"})
    assert caught.value.failure.code == "INSTALL_FAILED"


def test_files_that_include_each_other_end() -> None:
    with pytest.raises(BuildError, match="circle"):
        parse(["-r a.txt"], {"a.txt": "-r a.txt"})


def test_index_options_are_kept_in_order_and_pips_own_ones_are_not() -> None:
    found = parse(
        ["--extra-index-url https://b/simple", "--extra-index-url=https://a/simple", "--trusted-host a"]
    )
    assert found.options == ("--extra-index-url https://b/simple", "--extra-index-url https://a/simple")
