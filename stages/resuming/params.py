"""The section `checkpoints`."""

from stages.common.section import Positive, Section


class Checkpoints(Section):
    """What an interrupted stage leaves to go on from; no setting changes a result."""

    minutes: Positive
    days: Positive
