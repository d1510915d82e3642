"""The stages and commands; see docs/design.md."""

import sys

if sys.argv[:1] == ["-m"]:  # `python -m stages.NAME` is about to import the rest, which takes seconds
    from stages.common import errors

    errors.end_at_once_on_signals()
