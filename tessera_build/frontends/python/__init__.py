"""Reads models written in the language: the door from a `model.py` to Graph IR.

Takes a path; gives a `Module` with an entry for each function or class that the file offers. Invariant: whatever goes
wrong in the author's file is raised at the author's line, and running the file leaves nothing behind in this process.
"""

from tessera_build.frontends.python.reader import LoadedModel, read_python
from tessera_build.frontends.python.shapes import ModelShapes, ShapeRow, shapes_of

__all__ = ["LoadedModel", "ModelShapes", "ShapeRow", "read_python", "shapes_of"]
