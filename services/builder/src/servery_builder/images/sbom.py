"""What an image holds, as a software bill of materials in CycloneDX 1.6 (https://cyclonedx.org)."""

# The classes of cyclonedx are decorated with functions that hide their signatures.
# pyright: reportCallIssue=false, reportAttributeAccessIssue=false, reportArgumentType=false

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import Distribution, distributions
from pathlib import Path

from cyclonedx.model.bom import Bom
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.output.json import JsonV1Dot6
from packageurl import PackageURL


@dataclass(frozen=True, slots=True)
class Package:
    """A distribution as it is installed."""

    name: str
    version: str


def installed_packages(environment: Path) -> list[Package]:
    """Return what is installed in a virtual environment, by name. Reads its metadata and runs nothing of it."""
    folders = [str(path) for path in environment.glob("lib/python*/site-packages")]
    return sorted(
        {Package(_name(one), one.version) for one in distributions(path=folders)},
        key=lambda p: p.name.lower(),
    )


def bill_of_materials(
    model: str, version: str, build_id: str, python: str, packages: Iterable[Package], now: datetime
) -> str:
    """Return the bill of one build as JSON: the model is what it is about, Python and each package what it holds."""
    about = Component(
        name=model, version=version, type=ComponentType.MACHINE_LEARNING_MODEL, bom_ref=f"model:{build_id}"
    )
    parts = [
        Component(name="python", version=python, type=ComponentType.PLATFORM, bom_ref=f"python@{python}"),
        *(_component(package) for package in packages),
    ]
    bom = Bom(components=parts)
    bom.metadata.component = about
    bom.metadata.timestamp = now.astimezone(UTC)
    bom.register_dependency(about, parts)
    return JsonV1Dot6(bom).output_as_string(indent=1)


def _component(package: Package) -> Component:
    url = PackageURL(type="pypi", name=package.name.lower().replace("_", "-"), version=package.version)
    return Component(
        name=package.name,
        version=package.version,
        type=ComponentType.LIBRARY,
        purl=url,
        bom_ref=url.to_string(),
    )


def _name(distribution: Distribution) -> str:
    return str(distribution.metadata["Name"])
