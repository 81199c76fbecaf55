"""Say in one plain sentence why a model's environment could not be made.

Pure: from the output of uv to a failure code and a sentence that names what is wrong and what to do. The order of the
rules matters: uv's last words name the consequence ("unsatisfiable"), the cause stands further up. An output no rule
knows becomes a sentence with uv's own first error line, so nothing is ever answered with silence; the full output is in
the build log.
"""

import re
from collections.abc import Callable
from urllib.parse import urlsplit

from servery_builder.domain.build import Failure
from servery_common.contracts.builds import FailureCode

# Bounded, like everything tried at each position of an output that may be one endless word.
_NAME = r"[A-Za-z0-9][A-Za-z0-9._\-]{0,100}"
_PINNED = rf"{_NAME}(?:[=<>!~]=?\S{{1,100}})?"
_LAST_CHARACTERS = 200_000
# What older versions of uv draw around their explanation.
_BOXES = re.compile("[\u2502\u2570\u251c\u2500\u25b6\u00d7]")


def explain_install(output: str, *, python_version: str) -> Failure:
    """Explain a failed ``uv pip install``; ``output`` is everything it printed."""
    output = output[-_LAST_CHARACTERS:]
    # uv wraps its explanation with indentation and, in older versions, box characters.
    flat = re.sub(r"\s+", " ", _BOXES.sub(" ", output))
    unreadable = _not_a_requirement(output)
    if unreadable is not None:
        return unreadable
    for rule in _RULES:
        failure = rule(flat, python_version)
        if failure is not None:
            return failure
    return Failure(
        FailureCode.INSTALL_FAILED, f"Installing the model's packages failed: {_first_error(output)}"
    )


def _disk_full(flat: str, _python: str) -> Failure | None:
    if "No space left on device" not in flat and "Disk quota exceeded" not in flat:
        return None
    return Failure(
        FailureCode.INSTALL_FAILED,
        "The disk filled up while the model's packages were installed: free space on the builder's artifact volume"
        " and deploy again.",
    )


def _offline(flat: str, _python: str) -> Failure | None:
    if "network was disabled" not in flat:
        return None
    return Failure(
        FailureCode.INSTALL_FAILED,
        "The builder works offline (UV_OFFLINE) and its package cache does not hold everything the model needs:"
        " fill the cache or allow the network.",
    )


def _unreachable(flat: str, _python: str) -> Failure | None:
    if not re.search(
        r"error sending request|tcp connect error|dns error|operation timed out|Connection (?:refused|reset)",
        flat,
    ):
        return None
    where = f"The package index{_at(flat)}"
    if "Failed to download" in flat and "/simple/" not in flat:
        where = where.replace("The package index", "The download server")
    why = (
        "its name cannot be resolved"
        if "dns error" in flat
        else ("the connection was refused" if "Connection refused" in flat else "it does not answer")
    )
    return Failure(
        FailureCode.INSTALL_FAILED,
        f"{where} cannot be reached ({why}): check the network, UV_DEFAULT_INDEX and the proxy settings of the"
        " builder, then deploy again.",
    )


def _unknown_authority(flat: str, _python: str) -> Failure | None:
    if "invalid peer certificate: UnknownIssuer" not in flat:
        return None
    return Failure(
        FailureCode.INSTALL_FAILED,
        f"The package index{_at(flat)} has its certificate of an authority that the builder does not know: give it"
        " the authority's file (SSL_CERT_FILE), then deploy again.",
    )


def _not_from_source(flat: str, _python: str) -> Failure | None:
    found = re.search(
        rf"Wheels are required for `(?P<name>{_NAME})`|attempted to build `(?P<built>{_NAME})`", flat
    )
    if not found or "disabled" not in flat:
        return None
    name = found["name"] or found["built"]
    return Failure(
        FailureCode.INSTALL_FAILED,
        f"{name} has no wheel for this Python and platform, and this builder builds none from source: pin a version"
        " that has one, put a wheel into your index, or set SERVERY_BUILDER_WHEELS_ONLY=false if you trust whoever"
        " registers models.",
    )


def _unauthorized(flat: str, _python: str) -> Failure | None:
    found = re.search(
        r"HTTP status client error \((?P<status>401|403)[^)]*\) for url \((?P<url>[^)]+)\)", flat
    )
    if not found:
        return None
    host = urlsplit(found["url"]).netloc.rpartition("@")[2]
    return Failure(
        FailureCode.INSTALL_FAILED,
        f"The package index at {host} refused the builder's credentials (HTTP {found['status']}): set"
        " UV_INDEX_<NAME>_USERNAME and UV_INDEX_<NAME>_PASSWORD for the builder.",
    )


def _not_a_requirement(output: str) -> Failure | None:
    if "Couldn't parse requirement" not in output and "Failed to parse: `" not in output:
        return None
    # uv prints the line and marks the place below it.
    marked = re.search(r"^\s*(?P<line>\S.*)\n\s*\^+", output, re.MULTILINE)
    line = repr(marked["line"].strip()) if marked else "A line"
    return Failure(
        FailureCode.INSTALL_FAILED,
        f"{line} in the model's requirements is not a valid requirement: correct it and log the model again.",
    )


def _missing_file(flat: str, _python: str) -> Failure | None:
    found = re.search(r"Distribution not found at: (?:file://)?(?P<path>\S+)", flat)
    if not found:
        return None
    name = found["path"].rstrip("/").rpartition("/")[2]
    return Failure(
        FailureCode.ARTIFACT_MISSING,
        f"The model's requirements install {name}, which is not among the model's artifacts; log the model again"
        " with it.",
    )


def _build_from_source(flat: str, python: str) -> Failure | None:
    found = re.search(r"Failed to build:? `(?P<package>[^`]+)`", flat)
    if not found:
        return None
    package = found["package"].partition(" @ ")[0]
    compiler = re.search(
        r"No such file or directory: '(?P<a>[\w+\-]{0,40}(?:cc|\+\+|clang|fortran)[\w\-]{0,10})'"
        r"|(?P<b>gcc|g\+\+|cc|clang|gfortran) is not installed"
        r"|command '(?P<c>[\w/+\-]{0,200}(?:cc|\+\+|clang))' failed: No such file"
        r"|(?P<d>rustc|cargo|cmake)`? (?:is not installed|not found|is not available)"
        r"|can't find (?P<e>Rust) compiler",
        flat,
    )
    if compiler:
        tool = next(name for name in compiler.groups() if name)
        return Failure(
            FailureCode.INSTALL_FAILED,
            f"{package} has no ready-made wheel for Python {python} here and building it needs a compiler"
            f" ({tool}), which is not installed: use a version that has wheels, or install the compiler"
            " for the builder.",
        )
    header = re.search(r"fatal error: (?P<header>\S+\.h\w*): No such file", flat)
    if header:
        return Failure(
            FailureCode.INSTALL_FAILED,
            f"{package} has no ready-made wheel for Python {python} here and building it misses the C header"
            f" {header['header']}: use a version that has wheels, or install the header for the builder.",
        )
    module = re.search(r"ModuleNotFoundError: No module named '(?P<module>[^']+)'", flat)
    because = f" (its build needs the module {module['module']})" if module else ""
    return Failure(
        FailureCode.INSTALL_FAILED,
        f"{package} has no ready-made wheel for Python {python} here and building it from source failed{because}:"
        " use a version that has wheels for this Python; the build log has the whole output.",
    )


def _python_mismatch(flat: str, python: str) -> Failure | None:
    found = re.search(
        r"current Python version \((?P<current>[\d.]+)\) does not satisfy"
        r" Python(?P<wanted>[<>=!~][^\s,]*(?:,[<>=!~][^\s,]*)*)"
        rf".{{0,40}}?(?P<package>{_PINNED}) depends on Python",
        flat,
    )
    if found:
        return Failure(
            FailureCode.VERSION_CONFLICT,
            f"{found['package']} needs Python {found['wanted']}, but the model was logged with Python"
            f" {found['current']}: use a version of it that supports this Python or log the model with another Python.",
        )
    found = re.search(
        rf"(?P<package>{_PINNED}) has no wheels with a matching Python (?:ABI|version|implementation) tag",
        flat,
    )
    if found:
        return Failure(
            FailureCode.VERSION_CONFLICT,
            f"{found['package']} has no wheels for Python {python}: use a version of it that supports this Python"
            " or log the model with another Python.",
        )
    return None


def _platform_mismatch(flat: str, _python: str) -> Failure | None:
    found = re.search(rf"(?P<package>{_PINNED}) has no wheels with a matching platform tag", flat)
    if not found:
        return None
    return Failure(
        FailureCode.INSTALL_FAILED,
        f"{found['package']} has no wheels for this platform: remove it from the model's requirements or use a version"
        " that has some.",
    )


def _package_not_found(flat: str, _python: str) -> Failure | None:
    found = re.search(
        rf"(?:Because |and )?(?P<package>{_NAME}) was not found in (?:the package registry|the provided)",
        flat,
    )
    if not found:
        return None
    return Failure(
        FailureCode.PACKAGE_NOT_FOUND,
        f"There is no package named {found['package']} on the package index: correct the name in the model's"
        " requirements, or give the builder the index that has it (UV_INDEX).",
    )


def _version_not_found(flat: str, _python: str) -> Failure | None:
    found = re.search(
        rf"there (?:is|are) no versions? of (?P<package>{_NAME})(?P<version>[=<>!~][^\s]*)?", flat
    )
    if found and found["version"]:
        version = found["version"].removeprefix("==")
        return Failure(
            FailureCode.PACKAGE_NOT_FOUND,
            f"There is no version {version} of {found['package']} on the package index: use one that exists and log the"
            " model again.",
        )
    only = re.search(
        rf"only (?P<package>{_NAME})(?P<available>[=<>!~]\S+) is available"
        r" and you require (?P=package)(?P<wanted>[=<>!~]\S+?),? we can",
        flat,
    )
    if only:
        return Failure(
            FailureCode.PACKAGE_NOT_FOUND,
            f"There is no version {only['wanted']} of {only['package']} on the package index, only"
            f" {only['available']}: use one that exists and log the model again.",
        )
    return None


def _version_conflict(flat: str, _python: str) -> Failure | None:
    if "unsatisfiable" not in flat and "incompatible" not in flat:
        return None
    depends = re.search(
        rf"(?P<dependent>{_PINNED}) depends on"
        rf" (?P<name>{_NAME})(?:\{{[^}}]*\}}|\[[^\]]*\])?(?P<needed>[=<>!~]\S+)",
        flat,
    )
    if depends:
        name = depends["name"]
        wanted = re.search(
            rf"And because (?:you require|.*? depends on) {re.escape(name)}(?P<wanted>[=<>!~][^\s]+?),? we can",
            flat,
        )
        asks = (
            f" but the model asks for {name}{wanted['wanted']}"
            if wanted
            else " which another requirement rules out"
        )
        return Failure(
            FailureCode.VERSION_CONFLICT,
            f"{depends['dependent']} needs {name}{depends['needed']},{asks}: change one of the two in the model's"
            " requirements and log it again.",
        )
    twice = re.search(
        rf"you require (?P<one>{_NAME}[=<>!~]\S+) and (?P<other>{_NAME}[=<>!~]\S+?),? we can", flat
    )
    if twice:
        return Failure(
            FailureCode.VERSION_CONFLICT,
            f"The model's requirements ask for {twice['one']} and for {twice['other']}, which exclude each other:"
            " keep one and log the model again.",
        )
    return Failure(
        FailureCode.VERSION_CONFLICT,
        "The model's requirements exclude each other; the build log names the packages.",
    )


_RULES: tuple[Callable[[str, str], Failure | None], ...] = (
    _disk_full,
    _offline,
    _missing_file,
    _not_from_source,
    # Before the network rules: a source build's own output may mention a failed connection.
    _build_from_source,
    _unknown_authority,
    _unreachable,
    _unauthorized,
    _package_not_found,
    _python_mismatch,
    _platform_mismatch,
    _version_not_found,
    _version_conflict,
)


def _at(flat: str) -> str:
    """The first address an output names, to be read after what is there."""
    url = re.search(r"https?://[^\s`'\")]+", flat)
    return f" at {urlsplit(url.group()).netloc.rpartition('@')[2]}" if url else ""


def _first_error(output: str) -> str:
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith(("error:", "cause:", "Caused by:"))]
    chosen = [line.partition(":")[2].strip() for line in errors[:2]] or lines[-1:] or ["uv printed nothing"]
    return sentence_part(": ".join(chosen)) + "; the build log has the whole output."


def sentence_part(text: str) -> str:
    """Return a text as it fits into a sentence: one line, not too long, without its full stop."""
    line = " ".join(text.split())
    return (line if len(line) <= 300 else f"{line[:297]}...").rstrip(".")
