"""A process told by its standard input what to do and when.

Takes lines of JSON: {"do": NAME, ...}; gives one line of JSON for each. Invariant: it does nothing between two
requests, so that only one process of a group is ever busy.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from benchmarks.peers.case import Case

Request = dict[str, object]
Answer = dict[str, object]


def serve(made: Callable[[str, Case], Mapping[str, Callable[[Request], Answer]]]) -> None:
    """Answer requests until the input ends, by what `made` gives for the runner and the case of the command line."""
    runner, name, folder, threads = sys.argv[1:5]
    # Libraries print to standard output; the answers go to where it was.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    doings = made(runner, Case(name, Path(folder), int(threads)))
    for line in sys.stdin:
        request = json.loads(line)
        try:
            answer = doings[request["do"]](request)
        except Exception as error:  # a peer may fail in any way; its row then says how
            answer = {"error": f"{type(error).__name__}: {error}".partition("\n")[0][:300]}
        print(json.dumps(answer), file=answers, flush=True)
