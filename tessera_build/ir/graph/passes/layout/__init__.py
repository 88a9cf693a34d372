"""How an order of axes flows through ops: the machinery of `layout_channels_last.py`."""
