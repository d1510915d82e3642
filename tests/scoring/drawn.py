"""Random cases: labels, and outputs that are right more often than not."""

import numpy as np
from scipy.special import expit

from stages.scoring.kinds import SCORED


def of_classes(classes, seed):
    """Labels and probabilities of rows on which a model is right more often than not; each class has some rows."""
    generator = np.random.default_rng(seed)
    labels = np.concatenate([np.arange(classes), generator.integers(classes, size=60)])
    logits = generator.normal(size=(len(labels), classes)) + np.eye(classes)[labels]
    logits[:, -1] -= generator.integers(4)  # in some cases the last class is hardly ever the answer
    return labels, SCORED["single_label"].outputs(2 * logits)


def of_labels(seed, columns=4):
    """Labels, probabilities on which a model is right more often than not, and thresholds."""
    generator = np.random.default_rng(seed)
    has = (generator.random((50, columns)) < generator.random(columns)).astype(np.float32)
    has[:, -1] = seed % 2  # one label tells nothing about ranking
    probabilities = expit(generator.normal(size=has.shape) + 2 * has - 1)
    return has, probabilities, generator.random(columns).tolist()


def of_numbers(seed):
    """Numbers, and predictions that are off by about 1."""
    generator = np.random.default_rng(seed)
    numbers = generator.normal(3, 2, size=40).round(seed % 3)  # with ties
    return numbers.astype(np.float32), numbers + generator.normal(size=40)
