"""What somebody may have meant who gave a name that is not known.

Takes the name and those that there are; gives words for a hint. Invariant: nothing is suggested that is not there.
"""

import difflib
from collections.abc import Sequence


def did_you_mean(name: str, known: Sequence[str]) -> str | None:
    """A question with up to three names that are like this one; None where none is."""
    near = difflib.get_close_matches(name, known, n=3)
    return f"did you mean {' or '.join(near)}?" if near else None
