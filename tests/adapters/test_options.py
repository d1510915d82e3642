"""`peft.options`: whatever PEFT would ignore, convert or take from elsewhere is refused in one clear line."""

import pytest
from conftest import ROOT
from method_matrix import table

from stages.adapters.options import CONFIGS, check_options
from stages.adapters.params import Peft
from stages.common.errors import PipelineError


@pytest.mark.parametrize(
    ("method", "options", "message"),
    [
        (
            "lora",
            {"rank_patern": {}},
            "peft.options.rank_patern: unknown with peft.method: lora; did you mean 'rank_patt",
        ),
        (
            "ia3",
            {"rank_pattern": {}},
            "peft.options.rank_pattern: unknown with peft.method: ia3; ia3 has exclude_modules, ",
        ),
        ("lora", {"r": 4}, "peft.options.r: expected lora.r to set it, found 4"),
        (
            "vera",
            {"target_modules": []},
            "peft.options.target_modules: expected lora.target_modules to set it, found []",
        ),
        ("adalora", {"init_r": 12}, "peft.options.init_r: expected lora.r to set it, found 12"),
        ("adalora", {"rank_pattern": {}}, "peft.options.rank_pattern: expected the training to set it, found {}"),
        ("lora", {"inference_mode": True}, "peft.options.inference_mode: unknown with peft.method: lora"),
        ("prompt", {"num_virtual_tokens": "x"}, "peft.options.num_virtual_tokens: expected a valid integer, found 'x'"),
        ("prompt", {"num_virtual_tokens": "4"}, "peft.options.num_virtual_tokens: expected a valid integer, found '4'"),
        ("oft", {"eps": float("nan")}, "peft.options.eps: expected a finite number, found nan"),
        ("head", {"r": 4}, "peft.options: expected none with peft.method: head, found {'r': 4}"),
        ("full", {"r": 4}, "peft.options: expected none with peft.method: full, found {'r': 4}"),
    ],
)
def test_an_option_that_peft_would_not_use_as_meant_is_one_clear_line(method, options, message):
    with pytest.raises(PipelineError) as caught:
        check_options(Peft(method=method, options=options))
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("method", "options"),
    [
        ("lora", {"rank_pattern": {"q_proj": 2}, "alpha_pattern": {"v_proj": 1}}),
        ("adalora", {"tinit": 3, "orth_reg_weight": 0.1}),
        ("prompt", {"num_virtual_tokens": 4, "prompt_tuning_init": "RANDOM"}),
        ("boft", {"boft_block_size": 4}),
    ],
)
def test_options_of_the_method_are_taken(method, options):
    check_options(Peft(method=method, options=options))


@pytest.mark.parametrize("method", [*CONFIGS, "full"])
def test_no_options_fit_every_method(method):
    check_options(Peft(method=method, options={}))


def test_the_page_on_methods_says_what_the_code_does():
    assert (ROOT / "docs/methods.md").read_text() == f"{table()}\n"
