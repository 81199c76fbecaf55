"""What every message is: an immutable value with a versioned type name.

The version is part of the type (``servery.build.succeeded.v1``), not of the subject. Within a version
only optional fields are added and readers ignore fields they do not know; a breaking change is a new
type, published beside the old one until nobody reads it.
"""

from typing import ClassVar, Unpack

from pydantic import BaseModel, ConfigDict


class Value(BaseModel):
    """A part of a message: immutable, unknown fields ignored."""

    model_config = ConfigDict(
        frozen=True,
        extra="ignore",
        # A message may hold secrets, and what an error says is logged.
        hide_input_in_errors=True,
    )


class Message(Value):
    """A message on the wire. Subclasses name their type: ``class X(Message, type="servery.x.v1")``."""

    message_type: ClassVar[str]

    # Not __pydantic_init_subclass__: the keyword would reach object.__init_subclass__, which takes none.
    def __init_subclass__(cls, *, type: str, **kwargs: Unpack[ConfigDict]) -> None:
        super().__init_subclass__(**kwargs)
        cls.message_type = type
