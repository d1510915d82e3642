"""Whether the words that `predict --explain` names matter: the area under the deletion curve, against random words.

    python -m benchmarks.reasons

Reads models/base, models/adapter and data/prepared. From each of some test texts the words are left out one after the
other, those with the largest weights first, or in random orders; after each, the support of the answer (its log odds)
is taken. The area is the mean over all of these: the sooner the answer is lost, the smaller it is. Prints one line of
JSON: the mean areas, and in what share of the texts that of the largest weights is the smaller one.
"""

import json
from collections.abc import Sequence

import numpy as np
import pyarrow.parquet as pq

from stages.common import errors, paths
from stages.serving import evaluated, reasons
from stages.serving.answers import Classifier

TEXTS, ORDERS = 16, 2


def main() -> None:
    generator = np.random.default_rng(0)
    rows = pq.read_table(paths.PREPARED / "test.parquet")["text"].to_pylist()
    texts = [rows[place] for place in generator.choice(len(rows), TEXTS, replace=False)]
    tuned = Classifier.tuned(evaluated.Model())
    first, randoms = [], []
    for text, found in zip(texts, reasons.reasons_for(tuned, texts), strict=True):
        parts = reasons.spans([text])
        weights = [piece.weight for piece in found.texts[0] if piece.text.strip()]
        first.append(deletion_area(tuned, text, [parts[place] for place in np.argsort(weights)[::-1]]))
        orders = [[parts[place] for place in generator.permutation(len(parts))] for _ in range(ORDERS)]
        randoms.append(np.mean([deletion_area(tuned, text, order) for order in orders]))
    smaller = float(np.mean(np.array(first) < np.array(randoms)))
    area = {"largest_weights_first": float(np.mean(first)), "random": float(np.mean(randoms))}
    print(json.dumps({"texts": TEXTS, "area": area, "smaller_in": smaller}))


def deletion_area(classifier: Classifier, text: str, order: Sequence[reasons.Span]) -> float:
    """The mean support of the answer to a text while its parts are left out one after the other: the area under the
    deletion curve (Petsiuk, Das and Saenko 2018, section 4.1), the smaller, the sooner the answer is lost."""
    whole = classifier.logits([text])
    shorter = [reasons.without([text], order[: count + 1]) for count in range(len(order))]
    logits = np.concatenate([whole, classifier.logits(shorter)])
    return float(reasons.support(classifier.problem, logits, int(whole[0].argmax())).mean())


if __name__ == "__main__":
    errors.run_script(main, __doc__)
