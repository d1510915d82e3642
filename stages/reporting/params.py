"""The section `gate`."""

from typing import Annotated

from pydantic import Field

from stages.common.section import Section, Share


class Gate(Section):
    """What `python -m stages.report --gate` requires of the tuned model; null: no requirement."""

    max_drop: Annotated[float, Field(ge=0)] | None
    min_accuracy: Share | None
    min_gain: float | None
    max_p_value: Share | None
    max_slice_drop: Annotated[float, Field(ge=0)] | None
