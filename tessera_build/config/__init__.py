"""Settings in YAML become frozen records here, strictly: an unknown key is an error with a suggestion."""

from tessera_build.config.build import BuildConfig, DimBounds, load_build
from tessera_build.config.errors import ConfigError, HostError
from tessera_build.config.precision import PrecisionConfig, Tolerance, list_precisions, load_precision
from tessera_build.config.resources import resource
from tessera_build.config.target import Rates, TargetConfig, list_targets, load_target

__all__ = [
    "BuildConfig",
    "ConfigError",
    "DimBounds",
    "HostError",
    "PrecisionConfig",
    "Rates",
    "TargetConfig",
    "Tolerance",
    "list_precisions",
    "list_targets",
    "load_build",
    "load_precision",
    "load_target",
    "resource",
]
