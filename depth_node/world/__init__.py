"""Procedural scenes with exact depth and poses: for tests, the demo and the bundled model."""
