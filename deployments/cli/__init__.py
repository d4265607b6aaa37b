"""The `orchard` command line."""

from deployments.cli.app import main

__all__ = ["main"]
