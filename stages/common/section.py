"""The base class of the sections of params.yaml, the types of their values, and the error that their checks raise.

A section's checks refuse values but never change them. So a stage depends on the values that it reads, which dvc.yaml
lists, and never on the checks.
"""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field
from pydantic_core import PydanticCustomError

Share = Annotated[float, Field(gt=0, lt=1)]
Fraction = Annotated[float, Field(ge=0, lt=1)]
Count = Annotated[int, Field(ge=1, lt=2**31)]
Positive = Annotated[float, Field(gt=0)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]
Text = Annotated[str, Field(min_length=1)]


class Section(BaseModel):
    """A section of params.yaml: no unknown keys, no silent conversions, no infinities, no later changes."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


def contradiction(message: str) -> PydanticCustomError:
    """An error of our own that pydantic reports among its others; braces in `message` are taken literally."""
    return PydanticCustomError("contradiction", "{message}", {"message": message})
