"""What is known of a kind of network: the values that a network's file hands to the registry."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Mapping
from dataclasses import dataclass
from dataclasses import field
from typing import TYPE_CHECKING

from depth_node.model_folder import OutputSpec

if TYPE_CHECKING:
    from torch import Tensor
    from torch import nn

    from depth_node.networks.depth_network import DepthNetwork

Options = Mapping[str, object]
StateDicts = Mapping[str, Mapping[str, object]]
Triple = tuple[float, float, float]

KITTI_EIGEN = 'KITTI Eigen 697, median scaling'
ZEROS: Triple = (0.0, 0.0, 0.0)
ONES: Triple = (1.0, 1.0, 1.0)


@dataclass(frozen=True)
class Identity:
    """What one must know to build a network."""

    variant: str
    """One of the variants of its specification."""
    options: dict[str, object] = field(default_factory=dict)
    """Arguments besides the variant, plain values as a card holds them."""


@dataclass(frozen=True)
class Traits:
    """What the variant of a network fixes."""

    output_kind: str
    """'disparity', 'metric' or 'relative'; see model_folder.OutputSpec."""
    size_multiple: int
    """Height and width of the input must be multiples of this, pixels."""
    mean: Triple = ZEROS
    """Subtracted from RGB in [0, 1] inside the trained network, outside of exported graphs."""
    std: Triple = ONES
    """Divides after the subtraction."""
    fixed_size: tuple[int, int] | None = None
    """The only (height, width) that the network takes, pixels; None: any multiple."""
    tolerance: float = 1e-4
    """Largest error against the authors' numbers, in standard deviations of each array: 1e-4 for
    convolutional networks, 1e-3 for transformers."""


@dataclass(frozen=True)
class Meaning:
    """What the output of a released model means; goes into its card."""

    output: OutputSpec
    """Kind and range of the output."""
    focal_px: float | None = None
    """Focal length at network input for which the depth is right, pixels; None: unknown."""
    depth_scale: float = 1.0
    """Factor on the network's depth, e.g. 5.4 after Monodepth2's stereo training."""
    fit: str = 'native'
    """How images are fitted; see model_folder.ModelCard."""
    notes: str = ''
    """What a user should know, in plain words."""


@dataclass(frozen=True)
class Release:
    """A checkpoint that the authors published, or a configuration that they described."""

    name: str
    """Name that tells it from the others, e.g. 'lite-mono-small-640x192'."""
    identity: Identity
    """What builds its network."""
    height: int
    """Rows of the network's input in the authors' evaluation, pixels."""
    width: int
    """Columns of the network's input in the authors' evaluation, pixels."""
    source: str
    """Where its authors publish it; empty: never released."""
    protocol: str = ''
    """Test set and protocol of the figures, e.g. 'KITTI Eigen 697, median scaling'."""
    figures: Mapping[str, float] = field(default_factory=dict)
    """The authors' own figures by name: 'abs_rel' (mean of |d - d*| / d*), 'sq_rel' (mean of
    (d - d*)^2 / d*, metres), 'rmse_m', 'rmse_log', 'a1' (share of pixels within a factor 1.25),
    or as ``protocol`` explains.  Printed for comparison, never measured here."""


def kitti_figures(
    abs_rel: float,
    sq_rel: float | None,
    rmse_m: float,
    rmse_log: float | None = None,
    a1: float | None = None,
) -> dict[str, float]:
    """Name the figures of the usual table; those that were not published are left out."""
    named = {
        'abs_rel': abs_rel,
        'sq_rel': sq_rel,
        'rmse_m': rmse_m,
        'rmse_log': rmse_log,
        'a1': a1,
    }
    return {key: value for key, value in named.items() if value is not None}


@dataclass(frozen=True)
class Case:
    """A network as a file of conformance vectors names it."""

    network: nn.Module
    """Freshly built, in evaluation mode; its weights need no values."""
    translate: Callable[[StateDicts], dict[str, object]]
    """Released entries by part -> entries by the keys of ``network``; see NetworkSpec."""
    probe: Callable[[nn.Module, Tensor], dict[str, Tensor]]
    """Network and (1, 3, H, W) image in [0, 1] -> every output by its name in the vectors; pose
    networks get two images, (1, 6, H, W)."""
    tolerance: float
    """As in :class:`Traits`."""


@dataclass(frozen=True)
class NetworkSpec:
    """All that is known of a kind of network, and how to make one."""

    name: str
    """Name in the registry and in model cards."""
    paper: str
    """Authors, title, venue and year of the paper."""
    origin: str
    """Repository and commit from which the facts were taken."""
    code_license: str
    """Licence of the authors' code; ours is written anew."""
    weights_license: str
    """What is known of the licence of the published weights, in plain words; says
    'non-commercial' where it is."""
    variants: Mapping[str, Traits]
    """Accepted variants, smallest first."""
    option_help: Mapping[str, str]
    """Accepted options of ``build`` and what they do."""
    parts: tuple[str, ...]
    """Released files without their ending, e.g. ('encoder', 'depth'); ('model',) for one file of
    any name."""
    releases: tuple[Release, ...]
    """The checkpoints that the authors published, with their figures."""
    build: Callable[[Identity], DepthNetwork]
    """Identity with known variant and options -> freshly initialised network in training mode;
    call registry.build, which checks the names.  Raises ModelError for a value out of range."""
    infer: Callable[[StateDicts, str | None], Identity]
    """(released entries by part, variant that the user names or None) -> what they belong to.
    Raises ModelError when shapes and names belong to no variant, to another than the user names,
    or to several while the user names none."""
    translate: Callable[[StateDicts, Identity], dict[str, object]]
    """Released entries by part -> entries by the keys of the built network: renamed, doubled
    ones taken once, those that no forward pass uses left out.  What it does not know stays in
    under its own name, so that the caller can refuse it.  Never copies a large tensor."""
    meaning: Callable[[Identity, StateDicts, tuple[int, int]], Meaning]
    """(identity, released entries, (height, width) of the input) -> what the output means."""
    conformance_case: Callable[[str], Case | None]
    """Name of a file of conformance vectors -> the network; None: not one of this kind."""
