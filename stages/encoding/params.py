"""The section `encode`."""

import re
from typing import Annotated, Literal

from pydantic import Field, field_validator

from stages.common.section import Count, Positive, Section, Text, contradiction
from stages.problems.problem import ClassName

TEXT_ALONE = "{text}"
"""The template of a dataset for which none is given: no question around a text, or a pair."""


class Encode(Section):
    """From texts to tokens and stored states."""

    template: str | None
    truncation: Literal["head", "tail", "windows"]
    stride: Annotated[int, Field(ge=0, lt=2**31)]
    label_words: dict[ClassName, Text] | None
    max_length: Count | Literal["auto"]
    dtype: Literal["float32", "bfloat16"]
    max_gb: Positive
    batch_size: Count

    @property
    def window_stride(self) -> int | None:
        """Tokens that neighbouring windows share; None: there are no windows."""
        return self.stride if self.truncation == "windows" else None

    @field_validator("template")
    @classmethod
    def holds_the_text_once(cls, template: str | None) -> str | None:
        if template is None:
            return template
        fields = re.findall(r"{(\w*)}", template)
        if fields not in (["text"], ["text", "text_pair"]) or len(re.findall("[{}]", template)) > 2 * len(fields):
            raise contradiction(
                f"expected {{text}} exactly once, {{text_pair}} at most once after it, and no other braces, "
                f"found {template!r}"
            )
        return template
