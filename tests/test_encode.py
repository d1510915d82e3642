"""encode: what it says, what it refuses, and the layers that it runs."""

from collections import Counter

import pytest
from families import LAYERS, described

from stages import encode
from stages.common import paths
from stages.common.errors import PipelineError


@pytest.mark.parametrize(("cut", "warns"), [(5, False), (6, True)])
def test_a_line_says_where_more_than_a_twentieth_of_the_tokens_is_cut(cut, warns):
    warning = encode.cut_warning(Counter(tokens=100 - cut, truncated_rows=3, truncated_tokens=cut), 64)
    assert warning.startswith("warning: 6.0% of the tokens were cut off, from 3 rows: raise encode.max_length") == warns


def test_states_may_fill_what_is_allowed_and_no_more():
    gigabytes = 1000 * 32 * 4 / 1e9
    encode.check_size(1000, described(), gigabytes)
    with pytest.raises(PipelineError, match=r"expected the stored states to fit encode.max_gb = .*, they need 0.00 GB"):
        encode.check_size(1001, described(), gigabytes)
    encode.check_size(2000, described(dtype="bfloat16"), gigabytes)


@pytest.mark.parametrize(
    ("top_layers", "layers", "depth"), [(1, None, LAYERS - 1), (1, 3, 2), (3, 3, 0), ("all", None, 0)]
)
def test_the_layers_in_use_below_the_top_ones_are_run(saved_model, monkeypatch, capsys, top_layers, layers, depth):
    monkeypatch.setattr(paths, "BASE_MODEL", saved_model("llama"))
    model, found = encode.load_frozen_blocks(top_layers, layers=layers)
    assert found == depth
    assert (model is None) == (depth == 0)
    assert ("all layers have adapters, so only tokens are stored" in capsys.readouterr().out) == (depth == 0)
