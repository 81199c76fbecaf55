"""What the model of a finished build takes and gives, read from its files on the artifact volume."""

import asyncio
from functools import partial
from pathlib import Path

from servery_builder.artifacts.model_files import read_within
from servery_builder.domain.build import BuildError
from servery_builder.domain.model_description import Description, describe_model
from servery_builder.store import BuildStore
from servery_common.contracts.builds import DescribeModel, ModelDescription
from servery_common.errors import BadRequest, NotFound

LONGEST_SIGNATURE = 128 * 1024
"""Characters; a thousand columns have 60,000. An answer with all that is made of it fits one message (1 MiB)."""
LONGEST_EXAMPLE = 128 * 1024
"""Characters of an input example that is still shown."""


class ModelDescriptions:
    """Answers ``DescribeModel``."""

    def __init__(self, store: BuildStore) -> None:
        self._store = store

    async def describe(self, request: DescribeModel) -> ModelDescription:
        """Return it; raises ``NotFound`` without a finished build, ``BadRequest`` for files that cannot be used."""
        status = await self._store.status(request.build_id)
        if status.artifacts is None:
            raise NotFound(f"Build {request.build_id} has no model yet.")
        path = Path(status.artifacts.model_path)
        try:
            found = await asyncio.to_thread(describe_model, path, partial(read_within, path))
        except FileNotFoundError:
            raise NotFound(
                "The model's files are not on the artifact volume any more; deploy it again."
            ) from None
        except BuildError as error:
            raise BadRequest(error.failure.reason) from error
        _check_length(found)
        example = found.input_example
        return ModelDescription(
            build_id=request.build_id,
            inputs=found.inputs,
            outputs=found.outputs,
            params=found.params,
            input_example=example if example and len(example) <= LONGEST_EXAMPLE else None,
        )


def _check_length(found: Description) -> None:
    length = sum(len(part or "") for part in (found.inputs, found.outputs, found.params))
    if length > LONGEST_SIGNATURE:
        raise BadRequest(
            f"The model's signature is too long to be described ({length} of at most {LONGEST_SIGNATURE}"
            " characters of JSON). It can be scored all the same."
        )
