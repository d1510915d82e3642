"""The benchmarks: what RESULTS.md says is what was measured."""

from pathlib import Path

from benchmarks import results

FOLDER = Path(__file__).resolve().parent.parent / "benchmarks"


def test_the_committed_results_are_those_that_were_measured():
    parts = results.measured()
    assert set(parts) <= set(results.SECTIONS)
    assert (FOLDER / "RESULTS.md").read_text() == results.document(parts)
