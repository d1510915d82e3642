"""The parts of PEFT that its documentation does not describe, each with the reason why it is needed.

A new version of PEFT may change them without notice; tests/adapters/test_peft_internals.py then names the part.
"""

from peft.utils import ModulesToSaveWrapper
from peft.utils.constants import DUMMY_TARGET_MODULES
from torch import nn

NO_TARGET_MODULES = DUMMY_TARGET_MODULES
"""The value of `target_modules` with which LoRA adapts no module and trains `modules_to_save` alone.

PEFT refuses an empty list, and names that no module has.
"""

UNMATCHED_PATTERN = "The following .* did not match any targeted module"
"""The beginning, as a regular expression, of PEFT's warning that `rank_pattern` or `alpha_pattern` names no module.

PEFT only warns; here an option without effect is an error. The warning has no class of its own.
"""


def unwrap_saved_modules(model: nn.Module) -> None:
    """Replace PEFT's wrappers around the trained modules of `modules_to_save` with these modules, in place.

    `merge_and_unload` does this for every method but `ln_tuning`, which leaves the wrapper around the head.
    """
    for name, part in list(model.named_modules()):
        if isinstance(part, ModulesToSaveWrapper):
            trained = part.unload_and_optionally_merge_module(merge=True, safe_merge=False, adapter_names=None)
            model.set_submodule(name, trained)
