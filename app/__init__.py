"""The API that serves a model. The version is the product's: releases, /version and the changelog name it."""

__version__ = "0.9.0"
