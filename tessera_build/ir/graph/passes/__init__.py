"""Passes over Graph IR: one file each, a frozen dataclass whose fields are its options; `pipeline.py` orders them."""
