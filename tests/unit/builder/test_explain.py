"""Failures are explained in one plain sentence. The outputs in ``uv_output`` are real ones of uv 0.13."""

import time
from pathlib import Path

import pytest

from servery_builder.domain.explain import explain_install

OUTPUTS = Path(__file__).parent / "uv_output"


@pytest.mark.parametrize(
    ("output", "code", "named"),
    [
        ("package_not_found", "PACKAGE_NOT_FOUND", ["servery-no-such-package-zzz"]),
        ("version_not_found", "PACKAGE_NOT_FOUND", ["no version 99.0 of six"]),
        ("range_not_found", "PACKAGE_NOT_FOUND", ["no version >=99 of six", "only <=1.17.0"]),
        ("version_conflict", "VERSION_CONFLICT", ["flask==3.0.0 needs werkzeug>=3.0.0", "werkzeug==2.0.0"]),
        (
            "version_conflict_with_marker",
            "VERSION_CONFLICT",
            ["pandas==2.2.0 needs numpy>=1.23.2,<2", "asks for numpy==1.20.0"],
        ),
        ("same_package_twice", "VERSION_CONFLICT", ["six==1.16.0 and for six==1.17.0"]),
        ("python_too_old", "VERSION_CONFLICT", ["numpy==2.1.0 needs Python >=3.10", "Python 3.8.18"]),
        ("python_too_new", "VERSION_CONFLICT", ["tensorflow-gpu==1.0.0 has no wheels for Python 3.11.7"]),
        ("wrong_platform", "INSTALL_FAILED", ["pywin32==306 has no wheels for this platform"]),
        ("missing_compiler", "INSTALL_FAILED", ["psutil==6.0.0", "(gcc)"]),
        ("source_build_failed", "INSTALL_FAILED", ["scikit-learn==0.18", "pkg_resources"]),
        ("index_refuses_connection", "INSTALL_FAILED", ["package index at 127.0.0.1:9", "refused"]),
        ("index_name_unknown", "INSTALL_FAILED", ["nosuchhost.invalid", "name cannot be resolved"]),
        ("download_unreachable", "INSTALL_FAILED", ["download server at 127.0.0.1:9"]),
        ("git_unreachable", "INSTALL_FAILED", ["Git operation failed"]),
        ("offline", "INSTALL_FAILED", ["UV_OFFLINE"]),
        ("disk_full", "INSTALL_FAILED", ["disk filled up"]),
        ("missing_folder", "ARTIFACT_MISSING", ["nodir"]),
        ("not_a_requirement", "INSTALL_FAILED", ["'six=1.0'"]),
    ],
)
def test_what_uv_prints_becomes_one_sentence_with_the_names_that_matter(
    output: str, code: str, named: list[str]
) -> None:
    failure = explain_install((OUTPUTS / f"{output}.txt").read_text(), python_version="3.11.7")
    assert failure.code == code
    for name in named:
        assert name in failure.reason
    assert "\n" not in failure.reason
    assert failure.reason[-1] == "."


def test_every_recorded_output_is_tested() -> None:
    assert len(list(OUTPUTS.iterdir())) == 19


def test_the_older_layout_of_uv_is_understood() -> None:
    output = """
  \u00d7 No solution found when resolving dependencies:
  \u2570\u2500\u25b6 Because nosuch was not found in the package registry and you require
      nosuch, we can conclude that your requirements are unsatisfiable.
"""
    assert explain_install(output, python_version="3.12.1").code == "PACKAGE_NOT_FOUND"


@pytest.mark.parametrize(
    "output",
    [
        "error: No solution found when resolving dependencies\n  cause: Because docopt==0.6.2 has no usable wheels\n\n"
        "hint: Wheels are required for `docopt` because building from source is disabled for all packages (i.e., with"
        " `--no-build`)",
        "error: Building source distributions is disabled, but attempted to build `docopt`",
    ],
)
def test_a_package_without_a_wheel_is_named_where_none_is_built(output: str) -> None:
    reason = explain_install(output, python_version="3.11.7").reason
    assert reason.startswith("docopt has no wheel")
    assert "SERVERY_BUILDER_WHEELS_ONLY" in reason


def test_an_unknown_output_is_quoted_and_never_empty() -> None:
    assert "the moon is full" in explain_install("error: the moon is full\n", python_version="3.12").reason
    assert "uv printed nothing" in explain_install("", python_version="3.12").reason


def test_an_endless_word_is_explained_in_no_time() -> None:
    output = (
        "a" * 1_000_000
        + "\nerror: Failed to build `x`\n"
        + "ModuleNotFoundError: No module named '"
        + "b" * 90_000
    )
    started = time.process_time()
    assert explain_install(output, python_version="3.12").code == "INSTALL_FAILED"
    # Quadratic would be minutes.
    assert time.process_time() - started < 5
