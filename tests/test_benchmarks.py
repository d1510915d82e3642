"""The benchmarks: what RESULTS.md says is what was measured."""

from benchmarks import results


def test_the_committed_results_are_those_that_were_measured():
    parts = results.measured()
    assert set(parts) == set(results.SECTIONS)
    assert (results.HERE / "RESULTS.md").read_text() == results.document(parts)
