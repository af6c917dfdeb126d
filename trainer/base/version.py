"""The version, at the one place that is read without importing anything."""

__version__ = "0.2.0.dev0"
