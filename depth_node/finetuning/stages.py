"""A run of fine-tuning, stage by stage: what is done is not done again.

    audit -> cache -> train -> evaluate -> report

Every stage leaves a JSON record in the run folder and calls for the ones before it.  The key of a
record holds what it was made for, the keys before it included, so that a change of a recording or
of an option begins anew just where it matters.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from collections.abc import Iterable
from dataclasses import asdict
from dataclasses import dataclass
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any
from typing import TypeVar

from depth_node import model_folder
from depth_node.camera.assumed import AssumedCamera
from depth_node.dataset.audit import Audit
from depth_node.dataset.caching import CacheSettings
from depth_node.dataset.caching import cache_recording
from depth_node.dataset.exposure import TELLING
from depth_node.dataset.frame_cache import FrameCache
from depth_node.dataset.scale import ScaleEstimate
from depth_node.dataset.scale import disagreements
from depth_node.dataset.takes import Take
from depth_node.errors import CameraRejected
from depth_node.errors import DepthNodeError
from depth_node.errors import RecordingError
from depth_node.errors import SettingsError
from depth_node.files import sha256_of
from depth_node.finetuning import torchrun
from depth_node.finetuning.auditing import Audited
from depth_node.finetuning.auditing import audit_key
from depth_node.finetuning.auditing import audited
from depth_node.finetuning.auditing import used
from depth_node.finetuning.auditing import without_needed_poses
from depth_node.finetuning.learning import Learned
from depth_node.finetuning.learning import check_targets
from depth_node.finetuning.learning import described
from depth_node.finetuning.learning import exported
from depth_node.finetuning.learning import learned
from depth_node.finetuning.pooled_scale import contradictions
from depth_node.finetuning.preparation import Preparation
from depth_node.finetuning.preparation import prepared
from depth_node.finetuning.proof import Proof
from depth_node.finetuning.proof import proof_from_json
from depth_node.finetuning.proof import proven
from depth_node.finetuning.proof import publish
from depth_node.finetuning.run_folder import RunFolder
from depth_node.finetuning.run_folder import holds_model
from depth_node.finetuning.run_folder import key_of
from depth_node.finetuning.settings import FineTuneSettings
from depth_node.finetuning.start_model import StartModel
from depth_node.finetuning.telling import run_report
from depth_node.finetuning.trainer import Progress
from depth_node.frames import CameraFields
from depth_node.judging.gate import Outcome
from depth_node.judging.gate import Verdict
from depth_node.judging.models import EDGE_STEP_NOTE
from depth_node.judging.report import page
from depth_node.judging.scenes import JudgeSettings
from depth_node.model_folder import CARD_NAME
from depth_node.settings import CameraSettings

Kept = TypeVar('Kept')


@dataclass(frozen=True)
class Voice:
    """How a run speaks while it works; by default not at all."""

    say: Callable[[str], None] = lambda text: None
    """One line for people."""
    counted: Callable[[str, int, int], None] = lambda what, done, total: None
    """What is being done, how much of it is done, how much there is."""
    trained: Callable[[Progress], None] = lambda progress: None
    """Called after every training step."""


class FineTuning:
    """One run in its folder, which must be locked.

    :param settings: what is asked for.
    :param folder: where it works.
    :param voice: how it speaks.
    :param command: the command line, for the report.
    :raises ModelError: when there is no such start model.
    :raises SettingsError: when it lies where this run writes its own.
    """

    def __init__(
        self, settings: FineTuneSettings, folder: RunFolder, voice: Voice, command: str = ''
    ) -> None:
        self.settings, self.folder, self.voice, self.command = settings, folder, voice, command
        self.left_out: tuple[str, ...] = ()
        self._usable_audits: list[tuple[Take, Audit]] | None = None
        self._caches: list[tuple[Take, FrameCache]] | None = None
        self._preparation: Preparation | None = None
        self._called = False
        _check_start(settings.model, folder)

    @cached_property
    def start(self) -> StartModel:
        """Return the model that the run starts from."""
        return StartModel.open(self.settings.model)

    def audit(self) -> list[tuple[Take, Audit]]:
        """Look through every camera of every recording; return the takes that can be used.

        :raises RecordingError: when none can, with the reasons.
        """
        if self._usable_audits is not None:
            return self._usable_audits
        key = audit_key(self.settings)
        found = _read(Audited.from_json, self.folder.record('audit', key))
        if found is None:
            began_s = time.monotonic()
            earlier = (self.folder.latest('audit') or {}).get('result')
            found = audited(self.settings, earlier, self.voice.say)
            self.folder.write('audit', key, found.to_json(), time.monotonic() - began_s)
        for remark in found.remarks:
            self.voice.say(remark)
        audits = {take.name: audit for take, audit in found.takes}
        for name, audit in audits.items():
            for warning in audit.warnings:
                self.voice.say(f'{name}: {warning}')
        refused = {name: [why] for name, why in found.unreadable.items()}
        refused |= {name: list(audit.reasons) for name, audit in audits.items()}
        refused = without_needed_poses(audits, self.settings.pose, refused)
        self._audit_key = key
        self._usable_audits = used(found.takes, refused, self.voice.say)
        self.left_out = (
            *found.remarks,
            *(
                f'{name} is not used: {why}'
                for name, reasons in refused.items()
                for why in reasons
            ),
        )
        return self._usable_audits

    def cache(self) -> list[tuple[Take, FrameCache]]:
        """Decode, rectify and resize the images of every usable take.

        :raises RecordingError: when no recording can be read.
        :raises DepthNodeError: when the disk refuses.
        """
        if self._caches is not None:
            return self._caches
        audits = self.audit()
        began_s = time.monotonic()
        made: list[tuple[Take, FrameCache]] = []
        refused: dict[str, list[str]] = {}
        for take, audit in audits:
            try:
                made.append((take, self._cached(take, audit)))
            except (RecordingError, CameraRejected) as error:
                refused[take.name] = [str(error)]
        caches = used(made, refused, self.voice.say)
        self._cache_key = key_of(self._audit_key, [cache.header.key for _, cache in caches])
        if self.folder.record('cache', self._cache_key) is None:
            found = {
                take.name: {
                    'folder': cache.root.name,
                    'frames': len(cache),
                    'bytes': cache.stored_bytes,
                    'dropped': cache.dropped,
                    'poses': cache.header.pose_source,
                    'sources': [asdict(source) for source in cache.sources],
                    'camera': asdict(cache.camera),
                }
                for take, cache in caches
            }
            self.folder.write('cache', self._cache_key, found, time.monotonic() - began_s)
        self._caches = caches
        return caches

    def _cached(self, take: Take, audit: Audit) -> FrameCache:
        """Return the frames of one take."""
        cache = cache_recording(
            take.path,
            self._cache_settings(audit),
            self.folder.frames,
            progress=lambda done, total: self.voice.counted(f'frames of {take.name}', done, total),
        )
        for remark in cache.header.remarks:
            self.voice.say(f'{take.name}: {remark}')
        return cache

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
        key = self._keyed()
        record = self.folder.record('train', key)
        made_earlier = '' if record is None else str(record.get('candidate', ''))
        if record is not None and holds_model(self.folder.candidate, made_earlier):
            self._call(False)
            return record
        preparation = self.prepare()
        self._tell_preparation(preparation)
        began_s = time.monotonic()
        self._call(True)
        made = self._learned(preparation)
        if made.made.unsaved:
            raise DepthNodeError(
                'fine-tuning',
                f'a disk that refuses checkpoints ({made.made.unsaved})',
                'room to write',
                'Make room and run the same command again: it goes on from the last checkpoint.',
            )
        if made.made.stopped:
            self.voice.say(made.made.stopped)
        if made.exposure > TELLING:
            self.voice.say(
                f'the brightness changes by {100 * made.exposure:.0f} % between the frames of a '
                'pair: each source was made as bright as its target'
            )
        if made.kept.told():
            self.voice.say(made.kept.told())
        self.voice.say('writing the model and holding the engines to it')
        exported(self.start, made, preparation, self.settings, self.folder.candidate)
        record = {
            **described(preparation),
            **made.to_json(),
            'candidate': _card_hash(self.folder.candidate),
        }
        self.folder.write('train', key, record, time.monotonic() - began_s)
        return record

    def follow(self) -> None:
        """Train along with the first process, which does all the rest."""
        if torchrun.hear():
            self._keyed()
            self._learned(self.prepare())

    def dismiss(self) -> None:
        """Let the processes go that wait to train along, where they have not been called."""
        self._call(False)

    def _call(self, train: bool) -> None:
        """Tell those that wait whether to train along; they listen once and are gone then."""
        if not self._called:
            self._called = True
            torchrun.tell(train)

    def _keyed(self) -> str:
        """Return the key of the training, with the frames in place."""
        self.cache()
        chosen = asdict(replace(self.settings, recordings=self.settings.recordings[:1]))
        # takes, and what a mask leaves of them, are in the key of the cache
        for name in ('recordings', 'images', 'camera_infos', 'workers', 'device', 'ego_mask'):
            del chosen[name]
        if self.settings.teacher:  # its folder may hold another model than last time
            chosen['teacher'] = _card_hash(model_folder.find(self.settings.teacher))
        self._train_key = key_of(self._cache_key, self.start.sha256, chosen)
        return self._train_key

    def _learned(self, preparation: Preparation) -> Learned:
        """Train, together with the processes that follow, if there are any."""
        with self.folder.training(self._train_key) as checkpoint:
            removed = len(self.folder.removed_trainings)
            if removed:
                self.voice.say(f'removed the states of {removed} older trainings; one is kept')
            return learned(
                self.start,
                preparation,
                self.settings,
                self.folder,
                checkpoint,
                self.voice.trained,
                self.voice.counted,
            )

    def evaluate(self) -> Proof:
        """Judge the candidate beside the start model; publish the one that is proven.

        :raises RecordingError: when a recording cannot be read.
        """
        record = self.train()
        key = self._proof_key = key_of(self._train_key, record['candidate'])
        proof = _read(proof_from_json, self.folder.record('evaluate', key))
        if proof is None:
            began_s = time.monotonic()
            proof = proven(
                self.start.folder.path,
                self.folder.candidate,
                self.prepare().recordings,
                self.judging,
                self.voice.counted,
            )
            self.folder.write('evaluate', key, proof.to_json(), time.monotonic() - began_s)
        for note in proof.after.notes:
            if note != EDGE_STEP_NOTE:  # that is for readers of the figures
                self.voice.say(note)
        improved = proof.verdict.outcome is Outcome.IMPROVED
        source = self.folder.candidate if improved else self.start.folder.path
        if not holds_model(self.folder.best, _card_hash(source)):
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
            image=choice.image,
            camera_info=choice.camera_info,
            reference=choice.depth,
            camera=self.settings.camera,
            ego_mask=self.settings.ego_mask,
            salvage=True,  # as caching does, which says what is missing
        )

    def _cache_settings(self, audit: Audit) -> CacheSettings:
        card = self.start.folder.card
        settings = CacheSettings.of(audit, self.start.sizes, card.fit, self.settings.hidden)
        return replace(
            settings,
            max_rate_hz=self.settings.rate_hz,
            assumed=_assumed_fields(self.settings.camera, audit),
            ego_mask=self.settings.ego_mask,
        )

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
        several = len(preparation.by_take) > 1
        for name, estimates in preparation.by_take.items():
            of_it = f' on {name}' if several else ''
            self._tell_scales(estimates, of_it)
            for sentence in disagreements(estimates):
                say(f'{name}: {sentence}' if several else sentence)
        if several:
            self._tell_scales(preparation.estimates, ' of all')
            for sentence in contradictions(preparation.by_take):
                say(sentence)
        if preparation.chosen is None:
            say('The scale of the start model is left as it is.')

    def _tell_scales(self, estimates: Iterable[ScaleEstimate], of_it: str) -> None:
        for estimate in estimates:
            figures = f'{estimate.scale:.3g} +- {100 * estimate.spread:.0f} %'
            said = f', {estimate.samples} points' if estimate.samples else ''
            self.voice.say(
                f'scale by {estimate.source}{of_it}: {figures}{said} {estimate.remark}'.rstrip()
            )


def _read(read: Callable[[dict[str, Any]], Kept], record: dict[str, Any] | None) -> Kept | None:
    """Return what a record holds; None where there is none, or its stage must run again.

    A record that is damaged, or of a version that wrote it otherwise, only costs its stage.
    """
    try:
        return None if record is None else read(record)
    except (DepthNodeError, KeyError, TypeError, ValueError, AttributeError):
        return None


def _check_start(model: str, folder: RunFolder) -> None:
    """Refuse to start from what this run replaces: it would be gone, and judged against itself."""
    path = model_folder.find(model).resolve()
    if path in (folder.best.resolve(), folder.candidate.resolve()):
        raise SettingsError(
            'option --model',
            f'{path}, which this run replaces',
            'a model outside of the folder of the run',
            'Name another folder with --out.',
        )


def _assumed_fields(settings: CameraSettings, audit: Audit) -> CameraFields | None:
    """Return the camera that the options describe, where the audit has taken it."""
    seen = audit.camera
    if seen is None or seen.source == 'camera_info':
        return None
    return AssumedCamera().fields(settings, seen.width, seen.height, audit.camera_frame)


def _card_hash(folder: Path) -> str:
    """Return the SHA-256 of the card of a model folder; '' where there is none."""
    path = folder / CARD_NAME
    return sha256_of(path) if path.is_file() else ''
