"""A run of fine-tuning, stage by stage: what is done is not done again.

    audit -> cache -> train -> evaluate -> report

Every stage leaves a JSON record in the run folder and calls for the ones before it.  The key of a
record holds what it was made for, the keys before it included, so that a change of a recording or
of an option begins anew just where it matters.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from collections.abc import Sequence
from dataclasses import asdict
from dataclasses import dataclass
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

from depth_node.dataset.audit import Audit
from depth_node.dataset.audit import audit_from_json
from depth_node.dataset.audit_recording import audit_recording
from depth_node.dataset.caching import CacheSettings
from depth_node.dataset.caching import cache_recording
from depth_node.dataset.frame_cache import FrameCache
from depth_node.dataset.scale import disagreements
from depth_node.errors import DepthNodeError
from depth_node.errors import RecordingError
from depth_node.files import sha256_of
from depth_node.finetuning.learning import check_targets
from depth_node.finetuning.learning import described
from depth_node.finetuning.learning import exported
from depth_node.finetuning.learning import learned
from depth_node.finetuning.preparation import Preparation
from depth_node.finetuning.preparation import prepared
from depth_node.finetuning.proof import Proof
from depth_node.finetuning.proof import proof_from_json
from depth_node.finetuning.proof import proven
from depth_node.finetuning.proof import publish
from depth_node.finetuning.run_folder import RunFolder
from depth_node.finetuning.run_folder import key_of
from depth_node.finetuning.settings import FineTuneSettings
from depth_node.finetuning.start_model import StartModel
from depth_node.finetuning.telling import run_report
from depth_node.finetuning.trainer import Progress
from depth_node.judging.gate import Outcome
from depth_node.judging.gate import Verdict
from depth_node.judging.report import page
from depth_node.judging.scenes import JudgeSettings
from depth_node.model_folder import CARD_NAME

_VERSION = 2
"""Of what the stages do; a record of another one does not count."""


@dataclass(frozen=True)
class Voice:
    """How a run speaks while it works."""

    say: Callable[[str], None]
    """One line for people."""
    counted: Callable[[str, int, int], None]
    """What is being done, how much of it is done, how much there is."""
    trained: Callable[[Progress], None]
    """Called after every training step."""


class FineTuning:
    """One run in its folder, which must be locked.

    :param settings: what is asked for.
    :param folder: where it works.
    :param voice: how it speaks.
    :param command: the command line, for the report.
    """

    def __init__(
        self, settings: FineTuneSettings, folder: RunFolder, voice: Voice, command: str = ''
    ) -> None:
        self.settings, self.folder, self.voice, self.command = settings, folder, voice, command
        self._usable_audits: list[tuple[Path, Audit]] | None = None
        self._caches: list[tuple[Path, str, FrameCache]] | None = None
        self._preparation: Preparation | None = None

    @cached_property
    def start(self) -> StartModel:
        """Return the model that the run starts from."""
        return StartModel.open(self.settings.model)

    def audit(self) -> list[tuple[Path, Audit]]:
        """Look through every recording; return those that can be used.

        :raises RecordingError: when none can, with the reasons.
        """
        if self._usable_audits is not None:
            return self._usable_audits
        settings = self.settings
        key = key_of(_VERSION, _fingerprints(settings.recordings), asdict(settings.choice))
        record = self.folder.record('audit', key)
        if record is None:
            began_s = time.monotonic()
            made = {}
            for path in settings.recordings:
                self.voice.say(f'looking through {path}')
                made[str(path)] = audit_recording(path, settings.choice).to_json()
            record = {'audits': made}
            self.folder.write('audit', key, record, time.monotonic() - began_s)
        audits = [
            (path, audit_from_json(record['audits'][str(path)])) for path in settings.recordings
        ]
        usable = [(path, audit) for path, audit in audits if audit.usable]
        for path, audit in audits:
            for reason in audit.reasons:
                self.voice.say(f'{path} is not used: {reason}')
            for warning in audit.warnings:
                self.voice.say(f'{path}: {warning}')
        if not usable:
            raise RecordingError(
                'fine-tuning',
                'no usable recording (' + ' '.join(r for _, a in audits for r in a.reasons) + ')',
                'one to learn from',
            )
        self._audit_key, self._usable_audits = key, usable
        return usable

    def cache(self) -> list[tuple[Path, str, FrameCache]]:
        """Decode, rectify and resize the images of every usable recording.

        :raises RecordingError: when a recording cannot be read or the disk refuses.
        """
        if self._caches is not None:
            return self._caches
        audits = self.audit()
        names = _names([path for path, _ in audits])
        began_s = time.monotonic()
        caches = []
        for (path, audit), name in zip(audits, names, strict=True):
            cache = cache_recording(
                path,
                self._cache_settings(audit),
                self.folder.frames,
                progress=lambda done, total, name=name: self.voice.counted(  # type: ignore[misc]
                    f'frames of {name}', done, total
                ),
            )
            for remark in cache.header.remarks:
                self.voice.say(f'{path}: {remark}')
            caches.append((path, name, cache))
        self._cache_key = key_of(self._audit_key, [cache.header.key for _, _, cache in caches])
        if self.folder.record('cache', self._cache_key) is None:
            found = {
                name: {
                    'folder': cache.root.name,
                    'frames': len(cache),
                    'bytes': cache.stored_bytes,
                    'dropped': cache.dropped,
                    'poses': cache.header.pose_source,
                    'sources': [asdict(source) for source in cache.sources],
                    'camera': asdict(cache.camera),
                }
                for _, name, cache in caches
            }
            self.folder.write('cache', self._cache_key, found, time.monotonic() - began_s)
        self._caches = caches
        return caches

    def prepare(self) -> Preparation:
        """Divide the time, find the scale and the pairs.

        :raises RecordingError: when too few frames teach anything.
        """
        if self._preparation is None:
            settings = self.settings
            preparation = prepared(
                self.start,
                self.cache(),
                height_m=settings.camera_height_m,
                rescale=settings.scale == 'auto',
            )
            check_targets(preparation)
            self._preparation = preparation
        return self._preparation

    def train(self) -> dict[str, Any]:
        """Train, and write the candidate; return the record.

        :raises RecordingError: when too little can be learned.
        :raises ModelError: when the start model cannot be fine-tuned.
        """
        start, cache_key = self.start, self._cached()
        chosen = asdict(replace(self.settings, recordings=self.settings.recordings[:1]))
        for name in ('recordings', 'workers', 'device'):
            del chosen[name]
        key = self._train_key = key_of(cache_key, start.sha256, chosen)
        record = self.folder.record('train', key)
        if record is not None and _card_hash(self.folder.candidate) == record['candidate']:
            return record
        preparation = self.prepare()
        self._tell_preparation(preparation)
        began_s = time.monotonic()
        made = learned(
            start,
            preparation,
            self.settings,
            self.folder,
            self.folder.checkpoint / key,
            self.voice.trained,
            self.voice.counted,
        )
        if made.made.unsaved:
            raise DepthNodeError(
                'fine-tuning',
                f'a disk that refuses checkpoints ({made.made.unsaved})',
                'room to write',
                'Make room and run the same command again: it goes on from the last checkpoint.',
            )
        if made.made.stopped:
            self.voice.say(made.made.stopped)
        self.voice.say('writing the model and holding the engines to it')
        exported(start, made, preparation, self.settings, self.folder.candidate)
        record = {
            **described(preparation),
            **made.to_json(),
            'candidate': _card_hash(self.folder.candidate),
        }
        self.folder.write('train', key, record, time.monotonic() - began_s)
        return record

    def evaluate(self) -> Proof:
        """Judge the candidate beside the start model; publish the one that is proven.

        :raises RecordingError: when a recording cannot be read.
        """
        record = self.train()
        key = self._proof_key = key_of(self._train_key, record['candidate'])
        known = self.folder.record('evaluate', key)
        if known is not None:
            proof = proof_from_json(known)
        else:
            began_s = time.monotonic()
            proof = proven(
                self.start.folder.path,
                self.folder.candidate,
                self.prepare().recordings,
                self.judging,
                self.voice.counted,
            )
            self.folder.write('evaluate', key, proof.to_json(), time.monotonic() - began_s)
        improved = proof.verdict.outcome is Outcome.IMPROVED
        source = self.folder.candidate if improved else self.start.folder.path
        if _card_hash(self.folder.best) != _card_hash(source):
            publish(source, self.folder.best)
        return proof

    def report(self) -> Verdict:
        """Write the report; return the verdict.

        :raises RecordingError: when a recording cannot be read.
        """
        proof = self.evaluate()
        key = key_of(self._proof_key, self.command)
        if self.folder.record('report', key) is None or not self.folder.report.exists():
            began_s = time.monotonic()
            report = run_report(self, proof)
            self.folder.write_page(page(report))
            self.folder.write('report', key, report.to_json(), time.monotonic() - began_s)
        return proof.verdict

    @property
    def judging(self) -> JudgeSettings:
        """Return what is compared with what."""
        choice = self.settings.choice
        return JudgeSettings(
            image=choice.image, camera_info=choice.camera_info, reference=choice.depth or None
        )

    def _cached(self) -> str:
        """Return the key of the cache stage, which is done."""
        self.cache()
        return self._cache_key

    def _cache_settings(self, audit: Audit) -> CacheSettings:
        card = self.start.folder.card
        settings = CacheSettings.of(audit, self.start.sizes, card.fit, self.settings.hidden)
        return replace(settings, max_rate_hz=self.settings.rate_hz)

    def _tell_preparation(self, preparation: Preparation) -> None:
        """Say what is learned from, and what every source says of the scale."""
        say = self.voice.say
        for item in preparation.recordings:
            left = ', '.join(f'{n} {why}' for why, n in sorted(item.plan.dropped.items()))
            say(
                f'{item.name}: {len(item.plan.targets)} of {len(item.cache)} frames are learned '
                f'from, {len(item.split.held_out)} are held out'
                + (f'; left out: {left}' if left else '')
            )
        for estimate in preparation.estimates:
            figures = f'{estimate.scale:.3g} +- {100 * estimate.spread:.0f} %'
            said = f', {estimate.samples} points' if estimate.samples else ''
            say(f'scale by {estimate.source}: {figures}{said} {estimate.remark}'.rstrip())
        for sentence in disagreements(preparation.estimates):
            say(sentence)
        if preparation.chosen is None:
            say('The scale of the start model is left as it is.')


def _card_hash(folder: Path) -> str:
    """Return the SHA-256 of the card of a model folder; '' where there is none."""
    path = folder / CARD_NAME
    return sha256_of(path) if path.is_file() else ''


def _fingerprints(paths: Sequence[Path]) -> list[Any]:
    """Return names, lengths and times of the files of recordings."""
    found = []
    for path in paths:
        files = sorted(path.iterdir()) if path.is_dir() else [path]
        found.append(
            [
                str(path.resolve()),
                [(f.name, f.stat().st_size, f.stat().st_mtime_ns) for f in files if f.is_file()],
            ]
        )
    return found


def _names(paths: Sequence[Path]) -> list[str]:
    """Return short names of recordings, distinct ones; those of ``judge`` too."""
    short = [path.resolve().name for path in paths]
    return short if len(set(short)) == len(short) else [str(path) for path in paths]
