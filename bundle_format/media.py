"""The fixed names of the format: media types, file names and annotation keys.

Takes nothing; gives constants that the writer, the reader and SPEC.md share.
Invariant: a name here never changes its meaning; a changed payload gets a new name with the next number.
"""

from typing import Final

BUNDLE: Final = "application/vnd.tessera.bundle.v1"
CONFIG: Final = "application/vnd.tessera.config.v1+json"

GRAPH_IR: Final = "application/vnd.tessera.ir.graph.v1+zstd"
SCHEDULE_IR: Final = "application/vnd.tessera.ir.schedule.v1+zstd"
TILE_IR: Final = "application/vnd.tessera.ir.tile.v1+zstd"
TARGET_IR: Final = "application/vnd.tessera.ir.target.v1+zstd"
TUNING: Final = "application/vnd.tessera.tuning.v1+zstd"
ELF_CODE: Final = "application/vnd.tessera.code.elf.v1"
C_HEADER: Final = "application/vnd.tessera.header.c.v1"
WEIGHTS: Final = "application/vnd.tessera.weights.v1"

LAYERS: Final = frozenset((GRAPH_IR, SCHEDULE_IR, TILE_IR, TARGET_IR, TUNING, ELF_CODE, C_HEADER, WEIGHTS))

# Attached as referrers; other artifact types (signatures, provenance) may be attached too.
PROOF: Final = "application/vnd.tessera.proof.v1+json"

OCI_INDEX: Final = "application/vnd.oci.image.index.v1+json"
OCI_MANIFEST: Final = "application/vnd.oci.image.manifest.v1+json"
OCI_EMPTY: Final = "application/vnd.oci.empty.v1+json"

LAYOUT_FILE: Final = "oci-layout"
LAYOUT_BYTES: Final = b'{"imageLayoutVersion":"1.0.0"}'
INDEX_FILE: Final = "index.json"
BLOB_FOLDER: Final = "blobs/sha256/"

# In the identity index, on each variant: lets a person at a registry tell variants apart without fetching configs.
TARGET_ANNOTATION: Final = "dev.tessera.target"
# In the outer index: the tag by which OCI tools address the bundle inside a layout (`oras cp model.tessera:bundle`).
TAG_ANNOTATION: Final = "org.opencontainers.image.ref.name"
TAG: Final = "bundle"
