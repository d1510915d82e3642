"""The section `compute`."""

from typing import Literal

from stages.common.section import Count, Section, Text


class Compute(Section):
    """Where the work runs. No stage of dvc.yaml lists this section, so that a change reruns nothing."""

    processes: Count
    strategy: Literal["ddp", "fsdp"]
    engine: Literal["local", "ray"]
    address: Text | None
