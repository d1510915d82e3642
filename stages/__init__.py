"""The stages and commands; see docs/design.md."""

import logging
import sys

if sys.argv[:1] == ["-m"]:  # `python -m stages.NAME` is about to import the rest, which takes seconds
    from stages.common import errors

    errors.end_at_once_on_signals()

# peft imports bitsandbytes where it is installed; on a CPU with AVX512-BF16 that warns of a kernel for 4-bit layers
logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
