"""Tessera beside its peers: the same models, interleaved in one process group, on the same cores.

    pip install '.[bench]' && python -m benchmarks.peers --models resnet50,bert_base --out peers

Each runner lives in a process of its own, so that memory and start-up are its own; a parent gives them turns. Ratios
of one round are compared, never times of different rounds. Writes `peers.json` and one page, `peers.html`.
"""
