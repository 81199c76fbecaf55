"""Read pip requirement lines the way a model carries them.

The lines are flattened (``-r`` expanded), local paths are made absolute and kept inside the model's directory,
and each line gets a normal form, so that two models with the same requirements, written differently, share one
environment. Reading files is left to the caller's ``read`` function.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import InvalidWheelFilename, canonicalize_name, parse_wheel_filename

from servery_builder.domain.build import BuildError
from servery_builder.domain.model_path import ReadText, inside
from servery_common.contracts.builds import FailureCode

_COMMENT = re.compile(r"(^|\s+)#.*$")
_ONE_VALUE_OPTIONS = {
    "-r": "--requirement",
    "-c": "--constraint",
    "-e": "--editable",
    "-i": "--index-url",
    "-f": "--find-links",
}
_PASSED_ON = (
    "--index-url",
    "--extra-index-url",
    "--find-links",
    "--no-index",
    "--no-binary",
    "--only-binary",
    "--pre",
)
# Per-requirement options pip allows after the specifier.
_TRAILING_OPTION = re.compile(r"\s--(?:hash|config-settings?|global-option|install-option)\b")
_DEEPEST_INCLUDE = 10


@dataclass(frozen=True)
class Requirements:
    """Flattened requirements, ready to be handed to the installer."""

    lines: tuple[str, ...] = ()
    """As the installer reads them; local paths are absolute."""
    options: tuple[str, ...] = ()
    """Index and format options, in their order."""
    constraints: tuple[str, ...] = ()
    """The lines of all constraint files."""
    local_paths: tuple[Path, ...] = ()
    """Wheels and folders inside the model's directory that are to be installed."""
    normalised: tuple[str, ...] = ()
    """What identifies the lines, without local paths, sorted."""
    names: frozenset[str] = field(default_factory=frozenset[str])
    """Canonical names of the distributions asked for directly, where the line tells."""


def parse_requirements(lines: Iterable[str], *, model_dir: Path, read: ReadText) -> Requirements:
    """Parse requirement lines that stand in a file of ``model_dir``; raises ``BuildError``."""
    parser = _Parser(model_dir, read)
    parser.add(lines, model_dir, depth=0)
    return Requirements(
        lines=tuple(dict.fromkeys(parser.lines)),
        options=tuple(dict.fromkeys(parser.options)),
        constraints=tuple(dict.fromkeys(parser.constraints)),
        local_paths=tuple(dict.fromkeys(parser.local_paths)),
        normalised=tuple(sorted(set(parser.normalised))),
        names=frozenset(parser.names),
    )


class _Parser:
    def __init__(self, model_dir: Path, read: ReadText) -> None:
        self._model_dir = model_dir
        self._read = read
        self.lines: list[str] = []
        self.options: list[str] = []
        self.constraints: list[str] = []
        self.local_paths: list[Path] = []
        self.normalised: list[str] = []
        self.names: set[str] = set()

    def add(self, lines: Iterable[str], folder: Path, depth: int) -> None:
        if depth > _DEEPEST_INCLUDE:
            raise BuildError(
                FailureCode.INSTALL_FAILED, "The model's requirements include each other in a circle (-r)."
            )
        for line in logical_lines(lines):
            if line.startswith("-"):
                self._add_option(line, folder, depth)
            else:
                self._add_requirement(line)

    def _add_option(self, line: str, folder: Path, depth: int) -> None:
        name, value = split_option(line)
        if name == "--requirement":
            path = self._inside(folder / value, value)
            self.add(self._read_file(path, value).splitlines(), path.parent, depth + 1)
        elif name == "--constraint":
            path = self._inside(folder / value, value)
            for constraint in logical_lines(self._read_file(path, value).splitlines()):
                self._add_constraint(constraint)
        elif name == "--editable":
            # Installed as a copy: the environment is shared by models and must not point into one of them.
            self._add_requirement(value)
        elif name in _PASSED_ON:
            local = value.removeprefix("file:").removeprefix("//")
            is_local = local != value or (name == "--find-links" and "://" not in value)
            resolved = str(self._inside(folder / local, value)) if is_local else value
            self.options.append(f"{name} {resolved}".strip())
        # Everything else (--trusted-host, --process-dependency-links, --use-feature …) speaks to pip itself.

    def _add_requirement(self, line: str) -> None:
        local = local_path(line)
        if local is None:
            self.lines.append(line)
            self.normalised.append(normalise(line))
            name = requirement_name(line)
            if name:
                self.names.add(name)
            return
        path, suffix = local
        absolute = self._inside(self._model_dir / path, path)
        self.local_paths.append(absolute)
        self.lines.append(f"{absolute}{suffix}")
        self.normalised.append(f"local:{absolute.name}{suffix}")
        name = wheel_name(absolute.name)
        if name:
            self.names.add(name)

    def _inside(self, path: Path, shown: str) -> Path:
        return inside(self._model_dir, path, shown)

    def _add_constraint(self, line: str) -> None:
        # Constraints go to the installer as they are, so nothing in them may name a file or set an option.
        if line.startswith("-") or local_path(line) is not None:
            raise BuildError(
                FailureCode.INSTALL_FAILED,
                f"The model's constraints contain {line!r}, but only versions of published packages can be constrained:"
                " remove the line and log the model again.",
            )
        self.constraints.append(line)

    def _read_file(self, path: Path, shown: str) -> str:
        try:
            return self._read(path)
        except FileNotFoundError as error:
            raise BuildError(
                FailureCode.ARTIFACT_MISSING,
                f"The model's requirements include the file {shown}, which is not among the model's artifacts;"
                " log the model again with it.",
            ) from error


def logical_lines(lines: Iterable[str]) -> Iterator[str]:
    """Join continued lines, drop comments and blank lines."""
    pending = ""
    for raw in lines:
        line = _COMMENT.sub("", raw.rstrip("\r\n")).rstrip()
        if line.endswith("\\"):
            pending += line[:-1].strip() + " "
            continue
        joined = (pending + line.strip()).strip()
        pending = ""
        if joined:
            yield joined
    if pending.strip():
        yield pending.strip()


def split_option(line: str) -> tuple[str, str]:
    """``-rfile``, ``-r file``, ``--requirement=file`` → (``--requirement``, ``file``)."""
    if line.startswith("--"):
        name, _, value = line.replace("=", " ", 1).partition(" ")
        return name, value.strip()
    short, value = line[:2], line[2:].lstrip("=").strip()
    return _ONE_VALUE_OPTIONS.get(short, short), value


def local_path(line: str) -> tuple[str, str] | None:
    """Split a line that installs a local file or folder into (path, the rest), else None."""
    named = re.match(r"[A-Za-z0-9][A-Za-z0-9._\-]*\s*(?:\[[^\]]*\])?\s*@\s*(?P<target>\S+)", line)
    target = named["target"] if named else line
    if target.startswith("file:"):
        rest = target.removeprefix("file:")
        return (rest.removeprefix("//") or rest, "")
    if named or "://" in target:
        return None
    path, separator, marker = target.partition(";")
    extras = re.search(r"\[[^\]]*\]$", path.strip())
    bare = path.strip()[: extras.start()] if extras else path.strip()
    looks_local = bare.startswith((".", "/")) or "/" in bare or bare.endswith((".whl", ".tar.gz", ".zip"))
    if not looks_local:
        return None
    suffix = (extras.group() if extras else "") + (f" {separator}{marker}" if separator else "")
    return bare, suffix


def normalise(line: str) -> str:
    """Return the normal form of one requirement: equal requirements have equal forms."""
    specifier = _TRAILING_OPTION.split(line, maxsplit=1)[0]
    try:
        requirement = Requirement(specifier)
    except InvalidRequirement:
        return " ".join(line.split())
    requirement.name = canonicalize_name(requirement.name)
    return f"{requirement}{line[len(specifier) :]}"


def requirement_name(line: str) -> str | None:
    """Return the canonical distribution name a line asks for, or None when it does not tell."""
    try:
        return canonicalize_name(Requirement(_TRAILING_OPTION.split(line, maxsplit=1)[0]).name)
    except InvalidRequirement:
        return None


def wheel_name(filename: str) -> str | None:
    """Return the canonical distribution name of a wheel's file name, or None."""
    try:
        return parse_wheel_filename(filename)[0]
    except InvalidWheelFilename:
        return None
