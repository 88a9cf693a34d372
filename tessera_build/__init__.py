"""Tessera's compiler: ONNX or Tessera models in, proved and hash-addressed bundles out."""
