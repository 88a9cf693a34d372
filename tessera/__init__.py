"""The language a model author imports; `tessera.kernel` and `tessera.tile` write kernels as Tile IR."""
