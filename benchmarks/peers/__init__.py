"""Tessera beside its peers: the same models, interleaved in one process group, on the same cores.

    pip install '.[bench]' && python -m benchmarks.peers --models resnet50,bert_base --out peers
    python -m benchmarks.peers --set kernels --runners tessera,onnxruntime,openvino --seconds 10

Each runner lives in a process of its own, so that memory and start-up are its own; a parent gives them turns. Ratios
of one round are compared, never times of different rounds. Writes `peers.json` and one page, `peers.html`. Recipes
that have a goal are printed with it, and whether it is met; `--set` names all of a kind.
"""
