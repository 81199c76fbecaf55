"""Run BuildKit through ``docker-buildx``: one layer, its output line by line; all of it when it fails."""

import asyncio
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from servery_builder.domain.build import BuildError
from servery_builder.domain.build_output import of_buildkit
from servery_builder.domain.explain_image import explain_image, has_lost_engine
from servery_builder.images.layers import Layer
from servery_common.contracts.builds import FailureCode
from servery_common.docker_engine import CUT_OFF, EngineAway

_PLACES = (
    "/usr/local/lib/docker/cli-plugins",
    "/usr/libexec/docker/cli-plugins",
    "/usr/lib/docker/cli-plugins",
)
_LINES_KEPT = 400


class BuildKit:
    """The client that is installed with the builder."""

    def __init__(self, binary: str | None = None) -> None:
        """Without ``binary`` it is looked for on the path and where Docker keeps its plugins."""
        self._binary = binary or shutil.which(
            "docker-buildx", path=os.pathsep.join([os.environ.get("PATH", ""), *_PLACES])
        )

    async def build(self, layer: Layer, say: Callable[[str], None]) -> str:
        """Make an image; return its content id (``sha256:…``). Cancelling ends it.

        Raises BuildError, or EngineAway when the engine cannot be reached, or not any more.
        """
        if self._binary is None:
            raise BuildError(
                FailureCode.IMAGE_FAILED,
                "docker-buildx is not installed where the builder runs: install it, or name it with"
                " SERVERY_BUILDER_IMAGE_BUILDX, then deploy again.",
            )
        with tempfile.TemporaryDirectory(prefix="image-") as directory:
            dockerfile, content_id = Path(directory) / "Dockerfile", Path(directory) / "id"
            dockerfile.write_text(layer.dockerfile())
            # Takes the place of a .dockerignore among a model's files, which must all be copied.
            dockerfile.with_name("Dockerfile.dockerignore").touch()
            arguments = [
                "build",
                "--load",
                "--progress=plain",
                f"--file={dockerfile}",
                f"--iidfile={content_id}",
            ]
            say(f"Making image {layer.image}.")
            output, code = await self._run([*arguments, f"--tag={layer.image}", layer.folder], directory, say)
            if code and has_lost_engine(output):
                raise EngineAway(CUT_OFF)
            if code:
                say(f"BuildKit ended with code {code}. All that it said:\n{output}")
                failure = explain_image(output)
                raise BuildError(failure.code, failure.reason)
            return content_id.read_text().strip()

    async def _run(self, arguments: list[str], home: str, say: Callable[[str], None]) -> tuple[str, int]:
        assert self._binary is not None
        process = await asyncio.create_subprocess_exec(
            self._binary,
            *arguments,
            env={
                **{name: value for name, value in os.environ.items() if name.startswith("DOCKER_")},
                "PATH": os.defpath,
                "HOME": home,
                "BUILDX_CONFIG": home,
            },
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        assert process.stdout is not None
        lines: list[str] = []
        try:
            async for raw in process.stdout:
                line = raw.decode(errors="replace").rstrip()
                if line:
                    lines.append(line)
                    if (shown := of_buildkit(line)) is not None:
                        say(shown)
            code = await process.wait()
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        return "\n".join(lines[-_LINES_KEPT:]), code
