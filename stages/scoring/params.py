"""The sections `baseline` and `evaluate`."""

from typing import Annotated, Literal

from pydantic import Field

from stages.common.section import Count, Positive, Section, Share


class Baseline(Section):
    """The rivals."""

    batch_size: Count
    regularization: Annotated[list[Positive], Field(min_length=1)]
    ngrams: Annotated[list[Count], Field(min_length=1)]


class Evaluate(Section):
    """Scoring the tuned model."""

    main: Literal["auto", "accuracy", "f1_macro", "mcc", "roc_auc", "log_loss", "f1_samples", "mae"]
    batch_size: Count
    curve_points: Annotated[int, Field(ge=2, lt=2**31)]
    resamples: Annotated[int, Field(ge=100, lt=2**31)]
    target_accuracy: Share | None
