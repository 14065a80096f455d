"""Fixtures that several files share."""

pytest_plugins = ['node_rig']
