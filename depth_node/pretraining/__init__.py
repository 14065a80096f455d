"""Training of the bundled model on procedural scenes alone, supervised by their exact depth."""
