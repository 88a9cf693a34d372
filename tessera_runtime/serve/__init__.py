"""A small HTTP server for one bundle: the Open Inference protocol, version 2 (KServe, Triton).

    python -m tessera_runtime.serve model.tessera --port 8000

Takes: a bundle and settings. Gives: a process that answers `/v2/...` and `/metrics` until SIGTERM.
Invariant: needs nothing but the standard library and numpy; no request, however malformed, ends the process.
"""
