"""What every request body is made of. Unknown fields are ignored, as Databricks does; wrong types are refused."""

from typing import Annotated, Any, cast

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict

from servery_common.errors import NotImplementedByServery
from servery_controller.domain.request import MAX_NAME_LENGTH


def _as_text(value: Any) -> Any:
    # Versions are strings on the wire; people and YAML write numbers.
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


def storable(value: str) -> str:
    """Raise ValueError for text that no database or environment can hold."""
    if "\0" in value:
        raise ValueError("must not hold a NUL character")
    if any("\ud800" <= character <= "\udfff" for character in value):
        raise ValueError("must be valid Unicode: it holds half of a surrogate pair")
    return value


def _no_truth(value: Any) -> Any:
    # To Python True is the number 1; to everybody else it is a mistake.
    if isinstance(value, bool):
        raise ValueError("must be a whole number")
    return value


def refused(message: str) -> BeforeValidator:
    """Refuse whatever says something. Clients send empty objects, or ones that are turned off, unasked."""

    def check(value: Any) -> Any:
        off = isinstance(value, dict) and cast(dict[str, Any], value).get("enabled") is False
        if off or value in (None, {}):
            return None
        raise NotImplementedByServery(message)

    return BeforeValidator(check)


Text = Annotated[str, AfterValidator(storable)]
Version = Annotated[Text, BeforeValidator(_as_text)]
Whole = Annotated[int, BeforeValidator(_no_truth)]

ENDPOINT_NAME = {"minLength": 1, "maxLength": MAX_NAME_LENGTH, "pattern": "^[A-Za-z0-9_-]+$"}
"""What the API's document says of endpoint names. ``domain.request`` checks them, with a better sentence."""


class Body(BaseModel):
    """Part of a request body."""

    model_config = ConfigDict(extra="ignore", frozen=True)
