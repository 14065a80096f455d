"""What a user can choose about a fine-tuning; every default is meant to work."""

from __future__ import annotations

from dataclasses import dataclass
from dataclasses import field
from pathlib import Path

from depth_node.dataset.ego_mask import EgoMask
from depth_node.dataset.topics import TopicChoice
from depth_node.errors import SettingsError
from depth_node.errors import quoted
from depth_node.settings import CameraSettings
from depth_node.settings import Settings

POSES = ('auto', 'recorded', 'residual', 'network')
SCALES = ('auto', 'none')
DEVICES = ('auto', 'cpu', 'cuda')
PRECISIONS = ('auto', 'float32', 'bfloat16')

_BLOCKS = 5
_LONGEST_GUARD_S = 2.0
_GUARD_SHARE = 0.1


@dataclass(frozen=True)
class FineTuneSettings:
    """One run."""

    recordings: tuple[Path, ...]
    """What is learned from."""
    model: str = Settings().model.name
    """Name of an installed model, or a model folder: where the training starts."""
    images: tuple[str, ...] = ()
    """Image topics of the cameras that are learned from; none: all that can be used."""
    camera_infos: tuple[str, ...] = ()
    """Their camera_info, one for each; none: the neighbours."""
    choice: TopicChoice = field(default_factory=TopicChoice)
    """Other topics, where a recording has several that would do."""
    camera: CameraSettings = field(default_factory=CameraSettings)
    """The camera, for recordings without a usable camera_info."""
    hidden: tuple[str, ...] = ()
    """Topics of metres that nothing may be learned from; they still serve as reference."""
    ego_mask: EgoMask | None = None
    """Where images show the robot itself: nothing is learned there, and nothing judged."""
    pose: str = 'auto'
    """'recorded' (odometry or TF), 'residual' (the same, with a small correction per pair),
    'network' (poses seen in the images, for recordings without any) or 'auto' (recorded where
    there are poses, else network)."""
    scale: str = 'auto'
    """'auto' takes the best source of metres that was recorded, 'none' leaves the scale alone."""
    camera_height_m: float | None = None
    """Height of the camera over level ground, metres; None where it is not known."""
    teacher: str = ''
    """Model whose shapes are learned too; empty for none."""
    steps: int = 0
    """Training steps; 0 takes eight times through the frames, 500 at least and 8000 at most."""
    batch: int = 8
    """Samples per step, of all processes together."""
    train_decoder_only: bool = False
    """Leave the encoder as it is."""
    workers: int = 2
    """Threads that prepare batches."""
    seed: int = 0
    """Of everything random."""
    device: str = 'auto'
    """'auto', 'cpu' or 'cuda'."""
    precision: str = 'auto'
    """Of the network while it learns: 'float32', 'bfloat16', or 'auto' for the latter where the
    hardware has it and it proves right."""
    rate_hz: float = 15.0
    """Images per second of recording that are looked at, at most."""

    def __post_init__(self) -> None:
        if not self.recordings:
            raise SettingsError('finetune', 'no recording', 'one or more recordings')
        if len(self.camera_infos) not in (0, max(1, len(self.images))):
            raise SettingsError(
                'option --camera-info',
                f'{len(self.camera_infos)} topics for {len(self.images)} of --image',
                'one for each camera, in the same order',
            )
        for name, value, allowed in (
            ('--pose', self.pose, POSES),
            ('--scale', self.scale, SCALES),
            ('--device', self.device, DEVICES),
            ('--precision', self.precision, PRECISIONS),
        ):
            if value not in allowed:
                raise SettingsError(
                    f'option {name}', quoted(value), 'one of ' + ', '.join(allowed)
                )
        for name, number, low in (
            ('--steps', self.steps, 0),
            ('--batch', self.batch, 1),
            ('--workers', self.workers, 0),
            ('--seed', self.seed, 0),
        ):
            if number < low:
                raise SettingsError(f'option {name}', str(number), f'{low} or more')
        if self.seed >= 2**63:  # torch takes no larger one
            raise SettingsError('option --seed', str(self.seed), 'less than 2^63')
        height_m = self.camera_height_m
        if height_m is not None and not 0.01 <= height_m <= 100.0:
            raise SettingsError('option --camera-height', f'{height_m}', '0.01 to 100 metres')
        if not 0.1 <= self.rate_hz <= 1000.0:
            raise SettingsError('option --rate', f'{self.rate_hz}', '0.1 to 1000 per second')


@dataclass(frozen=True)
class HoldOut:
    """How time is divided into what is learned from and what is judged by."""

    blocks: int = _BLOCKS
    """Equal parts of the time; the last one is held out."""
    guard_s: float = _LONGEST_GUARD_S
    """Time before the held-out part that nothing is learned from, seconds."""

    @staticmethod
    def of(duration_s: float) -> HoldOut:
        """Return the division of a recording: a short one cannot spare two seconds."""
        return HoldOut(guard_s=min(_LONGEST_GUARD_S, _GUARD_SHARE * duration_s))
