"""Every path that dvc.yaml names, defined once; all are relative to the root of the repository."""

import os
from pathlib import Path

PARAMS = Path("params.yaml")
PRESETS = Path("presets")
LOCK = Path("dvc.lock")
"""What the stages last read and wrote, by hash."""

RAW_MODELS = Path("models/raw")
RAW_DATA = Path("data/raw")

BASE_MODEL = Path("models/base")
PREPARED = Path("data/prepared")
DATASET = PREPARED / "dataset.json"
"""What the preset and the files of the dataset said for the null keys of params.yaml, by section."""
SLICES = Path("data/slices.parquet")
SPLITS = ("train", "validation", "test")
ALL_SPLITS = (*SPLITS, "calibration")
"""With the optional split, whose rows serve for the thresholds of `evaluate.target_accuracy` alone."""
ENCODED = Path("data/encoded")
FEATURES = Path("data/features")
ADAPTER = Path("models/adapter")
SEEDS = Path("models/seeds")
"""The adapters of the seeds that were not kept, each in a folder with the seed as its name; empty with one seed."""
ABSTENTION = Path("models/abstention.json")
"""The thresholds of `evaluate.target_accuracy`; an empty object without them."""
MERGED = Path("models/merged")
PUBLISHED = Path("models/published")
ONNX = Path("models/onnx")
EXPORTS = (MERGED, PUBLISHED, ONNX)
"""What `export` writes by default."""

BASELINE_PREDICTIONS = Path("data/predictions/baseline.parquet")
TEST_PREDICTIONS = Path("data/predictions/test.csv")
SUSPECTS = Path("data/predictions/suspects.csv")

DATA_METRICS = Path("metrics/data.json")
ENCODE_METRICS = Path("metrics/encode.json")
BASELINE_METRICS = Path("metrics/baseline.json")
TRAIN_METRICS = Path("metrics/train.json")
VALIDATION_METRICS = Path("metrics/validation.json")
"""The scores on the validation rows, by which experiments are ranked that end with `train`."""
TRAIN_CURVES = Path("metrics/train")
EVALUATE_METRICS = Path("metrics/evaluate.json")
EVALUATE_PLOTS = Path("metrics/plots")
HEADLINE = Path("metrics/headline.json")
"""The test scores that `dvc metrics` and `dvc exp show` list; metrics/evaluate.json has all."""
SUMMARY = Path("metrics/summary.png")
REPORT = Path("metrics/report.md")
CARD = Path("metrics/card.md")

CHECKPOINTS = Path(".cache/checkpoints")
"""What interrupted stages have left, to go on from."""

SCRATCH = Path(".cache/scratch")
"""What a stage needs for a moment; a process that was killed may leave some, and the next one removes it."""

DOWNLOADS = Path(os.environ.get("DVC_ROOT", "."), ".cache/downloads")
"""Verified archives, kept between runs and outside DVC, so that a rerun downloads nothing. A run in a copy of the
repository uses the archives of the original, which DVC_ROOT names."""

OWN = (
    *(PARAMS, PRESETS, RAW_MODELS, BASE_MODEL, ADAPTER, SEEDS, ABSTENTION),
    *(RAW_DATA, PREPARED, SLICES, ENCODED, FEATURES, BASELINE_PREDICTIONS, TEST_PREDICTIONS, SUSPECTS),
    *(DATA_METRICS, ENCODE_METRICS, BASELINE_METRICS, TRAIN_METRICS, VALIDATION_METRICS, TRAIN_CURVES),
    *(EVALUATE_METRICS, EVALUATE_PLOTS, HEADLINE, SUMMARY, REPORT, CARD, CHECKPOINTS, SCRATCH),
    *(LOCK, *map(Path, (".git", ".dvc", "stages", "dvc.yaml"))),
)
"""What belongs to the stages, the code, Git and DVC, each with all that is in it: no command writes there what a user
names."""

OWN_FOLDERS = tuple(map(Path, ("data", "metrics", "tests", "docs", "benchmarks", ".github", ".ci")))
"""Folders in which a user may put a file, but no further folder."""
