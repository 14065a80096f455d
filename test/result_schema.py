"""Holds result files to benchmarks/result.schema.json."""

from __future__ import annotations

import json
from pathlib import Path

from jsonschema import Draft202012Validator

_PATH = Path(__file__).parents[1] / 'benchmarks' / 'result.schema.json'
_VALIDATOR = Draft202012Validator(json.loads(_PATH.read_text()))
_VALIDATOR.check_schema(_VALIDATOR.schema)


def problems_of(content: object) -> list[str]:
    """Say where a result file departs from the schema, and how."""
    return [f'{error.json_path}: {error.message}' for error in _VALIDATOR.iter_errors(content)]
