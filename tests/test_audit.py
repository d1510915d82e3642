"""The stage `audit`, in a tiny project: what it lists, and what it refuses."""

import json

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

SUSPECTS = "data/predictions/suspects.csv"


def relabel(project, split, rows):
    """Give the first rows of a prepared split the other one of two classes; returns their numbers in the source."""
    path = project.folder / f"data/prepared/{split}.parquet"
    table = pq.read_table(path)
    labels = table["label"].to_numpy().copy()
    labels[:rows] = 1 - labels[:rows]
    place = table.schema.get_field_index("label")
    pq.write_table(table.set_column(place, table.schema.field(place), pa.array(labels)), path)
    return table["row"].to_numpy()[:rows].tolist()


def listed(project):
    """The suspect labels."""
    return pd.read_csv(project.folder / SUSPECTS)


def test_planted_wrong_labels_of_every_split_are_listed_by_their_rows_in_the_source(copied):
    planted = {split: relabel(copied, split, rows) for split, rows in (("train", 2), ("validation", 1), ("test", 1))}
    assert "labels are suspect" in copied.call("audit").stderr
    table = listed(copied)
    for split, rows in planted.items():
        found = table[table["split"] == split]
        assert set(rows) <= set(found["row"])
        prepared = pd.read_parquet(copied.folder / f"data/prepared/{split}.parquet").set_index("row")
        assert found["text"].tolist() == prepared.loc[found["row"], "text"].tolist()
        names = np.array(["negative", "positive"])
        assert found["label"].tolist() == names[prepared.loc[found["row"], "label"]].tolist()
    assert table["quality"].is_monotonic_increasing
    assert (table["label"] != table["likely"]).all()


def test_the_same_inputs_give_the_same_bytes(copied):
    relabel(copied, "train", 5)
    copied.call("audit")
    before = (copied.folder / SUSPECTS).read_bytes()
    copied.call("audit")
    assert (copied.folder / SUSPECTS).read_bytes() == before


def test_the_probes_are_regularized_as_the_rival_is(copied):
    relabel(copied, "train", 5)
    copied.call("audit")
    before = listed(copied)
    path = copied.folder / "metrics/baseline.json"
    metrics = json.loads(path.read_text())
    metrics["linear_probe"]["regularization"] *= 1e-4
    path.write_text(json.dumps(metrics))
    copied.call("audit")
    assert not before.equals(listed(copied))


def test_features_of_other_rows_are_refused(copied):
    path = copied.folder / "data/features/validation.parquet"
    pd.read_parquet(path)[::-1].to_parquet(path)
    done = copied.call("audit", check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("error: data/features/validation.parquet: expected the rows of data/prepared, found ")
    assert len(done.stderr.splitlines()) == 1
