"""Looking through recordings: their takes, an audit of each, and which of them are used."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import asdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from typing import TypeVar

from depth_node.dataset.audit import Audit
from depth_node.dataset.audit import audit_from_json
from depth_node.dataset.audit_recording import audit_recording
from depth_node.dataset.takes import FoundTakes
from depth_node.dataset.takes import Take
from depth_node.dataset.takes import takes_of
from depth_node.dataset.takes import told_apart
from depth_node.errors import RecordingError
from depth_node.finetuning.run_folder import key_of
from depth_node.finetuning.settings import FineTuneSettings

Item = TypeVar('Item')

_VERSION = 4
"""Of audits on record; those of another one do not count."""


@dataclass(frozen=True)
class Audited:
    """What was found in the recordings."""

    takes: tuple[tuple[Take, Audit], ...]
    """Every take that could be read."""
    unreadable: Mapping[str, str]
    """Recording or take -> why it could not be read."""
    remarks: tuple[str, ...]
    """Sentences about images that are no takes."""
    keys: tuple[str, ...]
    """What the audit of each take was made for."""

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {
            'takes': [
                {'take': take.to_json(), 'audit': audit.to_json(), 'key': key}
                for (take, audit), key in zip(self.takes, self.keys, strict=True)
            ],
            'unreadable': dict(self.unreadable),
            'remarks': list(self.remarks),
        }

    @staticmethod
    def from_json(value: Mapping[str, Any]) -> Audited:
        """Return what :meth:`to_json` made."""
        return Audited(
            tuple(
                (Take.from_json(item['take']), audit_from_json(item['audit']))
                for item in value['takes']
            ),
            value['unreadable'],
            tuple(value['remarks']),
            tuple(item['key'] for item in value['takes']),
        )


def audit_key(settings: FineTuneSettings) -> str:
    """Return the hash of all that audits depend on."""
    return key_of(
        _VERSION,
        [fingerprint(path) for path in settings.recordings],
        asdict(settings.choice),
        settings.images,
        settings.camera_infos,
        asdict(settings.camera),
    )


def audited(
    settings: FineTuneSettings, earlier: Mapping[str, Any] | None, say: Callable[[str], None]
) -> Audited:
    """Look through every recording; one that cannot be read does not stop the others.

    :param earlier: an earlier record of audits, of which those of the same takes are taken over.
    """
    known = _known(earlier or {})
    found: list[FoundTakes] = []
    unreadable: dict[str, str] = {}
    for path in settings.recordings:
        try:
            found.append(takes_of(path, settings.choice, settings.images, settings.camera_infos))
        except RecordingError as error:
            unreadable[str(path)] = str(error)
    made: list[tuple[Take, Audit]] = []
    keys: list[str] = []
    for take in told_apart(found):
        key = key_of(
            _VERSION, fingerprint(take.path), asdict(take.choice), asdict(settings.camera)
        )
        try:
            if key in known:
                audit = known[key]
            else:
                say(f'looking through {_called(take)}')
                audit = audit_recording(take.path, take.choice, settings.camera)
        except RecordingError as error:
            unreadable[_called(take)] = str(error)
            continue
        made.append((take, audit))
        keys.append(key)
    remarks = [
        f'{item.takes[0].path.resolve().name}: {text}' for item in found for text in item.remarks
    ]
    return Audited(tuple(made), unreadable, tuple(remarks), tuple(keys))


def _known(earlier: Mapping[str, Any]) -> dict[str, Audit]:
    """Return the audits of an earlier record, which may be damaged or of another version."""
    takes = earlier.get('takes')
    found: dict[str, Audit] = {}
    for item in takes if isinstance(takes, list) else ():
        try:
            found[item['key']] = audit_from_json(item['audit'])
        except (RecordingError, KeyError, TypeError):
            continue
    return found


def used(
    items: Sequence[tuple[Take, Item]],
    refused: Mapping[str, Sequence[str]],
    say: Callable[[str], None],
) -> list[tuple[Take, Item]]:
    """Return what was not refused, and say what was.

    :param refused: name of a take, or path of a recording -> the reasons.
    :raises RecordingError: when nothing is left.
    """
    for name, reasons in refused.items():
        for reason in reasons:
            say(f'{name} is not used: {reason}')
    left = [item for item in items if not refused.get(item[0].name)]
    if not left:
        listed = ' '.join(reason for reasons in refused.values() for reason in reasons)
        raise RecordingError('fine-tuning', f'no usable recording ({listed})', 'one to learn from')
    return left


def without_needed_poses(
    audits: Mapping[str, Audit], pose: str, refused: Mapping[str, list[str]]
) -> dict[str, list[str]]:
    """Return the reasons against takes, with one more where poses are wanted and missing.

    :param audits: name of a take -> its audit.
    :param pose: as the setting; 'auto' wants them of all where one has them.
    :param refused: name of a take -> reasons that are known.
    """
    found = {name: list(reasons) for name, reasons in refused.items()}
    usable = {name: audit for name, audit in audits.items() if audit.usable}
    posed = [audit for audit in usable.values() if audit.motion is not None]
    if pose == 'network' or (pose == 'auto' and not posed):
        return found
    why = f'option --pose is {pose}' if pose != 'auto' else 'others have them, which teach more'
    for name, audit in usable.items():
        if audit.motion is None:
            found.setdefault(name, []).append(
                f'It has no usable poses, and {why}. Record odometry, or TF that moves the '
                'camera, and /tf_static; or let a network find the poses (--pose network).'
            )
    return found


def fingerprint(path: Path) -> list[Any]:
    """Return names, lengths and times of the files of a recording."""
    files = sorted(path.iterdir()) if path.is_dir() else [path]
    return [
        str(path.resolve()),
        [(f.name, f.stat().st_size, f.stat().st_mtime_ns) for f in files if f.is_file()],
    ]


def _called(take: Take) -> str:
    """Return how a take is called while its recording may not even be there."""
    return take.name if take.reference is not None else str(take.path)
