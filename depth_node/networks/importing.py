"""Released files -> a model folder, its card filled with all that is known of them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from depth_node.errors import ModelError
from depth_node.model_folder import ModelCard
from depth_node.model_folder import ModelFolder
from depth_node.networks import registry
from depth_node.networks.checkpoint import Released
from depth_node.networks.checkpoint import load_released
from depth_node.networks.make_model import make_model
from depth_node.networks.specification import Identity
from depth_node.networks.specification import NetworkSpec
from depth_node.networks.specification import Release
from depth_node.networks.specification import StateDicts

_PUBLISHED = 'published by the authors for what this may be, not measured here'
_ENDINGS = ('.pth', '.pt', '.ckpt')


def import_released(
    name: str,
    path: Path,
    out: Path,
    *,
    variant: str | None = None,
    size: tuple[int, int] | None = None,
    fit: str | None = None,
    storage: str = 'f32',
    overwrite: bool = False,
) -> ModelFolder:
    """Make a model folder from files as their authors released them, whole or not at all.

    :param name: kind of network, one of registry.names().
    :param path: the file, or the folder that holds the files under their released names.
    :param out: model folder to make; its name becomes the model's.
    :param variant: needed only where the file does not tell, see NetworkSpec.infer.
    :param size: (height, width) of the input, pixels; default: as trained.
    :param fit: how images are fitted, see model_folder.ModelCard; default: as trained.
    :param storage: see make_model.
    :param overwrite: whether an existing model folder may be replaced.
    :raises ModelError: when files, variant or size are refused; nothing is written then.
    :raises EngineError: when an engine disagrees with the network; nothing is written then.
    """
    spec = registry.spec(name)
    released = load_released(spec, released_files(spec, path), variant)
    fitting = _fitting_releases(spec, released)
    size = size or released.training_size or _usual_size(spec, fitting)
    if size is None:
        raise ModelError(
            f'import of {path}',
            'files that do not carry their training size',
            'a size',
            'Give --height and --width.',
        )
    released.network.check_size(*size)
    card = card_of(spec, released.identity, released.entries, out.name, size)
    published = {
        known.name: {'protocol': known.protocol, **known.figures}
        for known in fitting
        if known.figures
    }
    card = replace(card, fit=fit or card.fit, metrics={_PUBLISHED: published} if published else {})
    return make_model(released.network, card, out, [size], storage=storage, overwrite=overwrite)


def card_of(
    spec: NetworkSpec,
    identity: Identity,
    entries: StateDicts,
    name: str,
    size: tuple[int, int],
) -> ModelCard:
    """Return the card of a released network as far as it is known before the folder is made.

    :param entries: all released entries by part; empty where there is no file.
    :param name: of the model.
    :param size: (height, width) of the input, pixels.
    """
    traits = spec.variants[identity.variant]
    meaning = spec.meaning(identity, entries, size)
    return ModelCard(
        name=name,
        network=spec.name,
        variant=identity.variant,
        output=meaning.output,
        inputs=(),
        fit=meaning.fit,
        mean=traits.mean,
        std=traits.std,
        focal_px=meaning.focal_px,
        depth_scale=meaning.depth_scale,
        options=identity.options,
        weights_license=spec.weights_license,
        source=f'{spec.paper}; weights as released by the authors ({spec.origin})',
        notes=meaning.notes,
    )


def released_files(spec: NetworkSpec, path: Path) -> dict[str, Path]:
    """Find the files of a release.

    :param path: a file, for networks released as one; else the folder that holds the parts, or
        any one of them.
    :returns: part -> file.
    :raises ModelError: when a part is missing; the text names the files that were looked for.
    """
    if len(spec.parts) == 1 and path.is_file():
        return {spec.parts[0]: path}
    folder = path.parent if path.is_file() else path
    found = {}
    for part in spec.parts:
        candidates = [folder / f'{part}{ending}' for ending in _ENDINGS]
        present = [candidate for candidate in candidates if candidate.is_file()]
        if not present:
            raise ModelError(
                f'import of {spec.name}',
                f'no {part}.pth in {folder}',
                f'the files {", ".join(f"{name}.pth" for name in spec.parts)}',
                'See: python -m depth_node.tools.models sources',
            )
        found[part] = present[0]
    return found


def _usual_size(spec: NetworkSpec, fitting: list[Release]) -> tuple[int, int] | None:
    """Return the size to take where the files carry none; None: it must be asked for.

    Single files never carry one and their networks take many, so the first in the list is meant.
    """
    sizes = [(known.height, known.width) for known in fitting]
    if len(set(sizes)) == 1 or (sizes and len(spec.parts) == 1):
        return sizes[0]
    return None


def _fitting_releases(spec: NetworkSpec, released: Released) -> list[Release]:
    """Return the releases that this may be: of its identity, and its size if it carries one."""
    return [
        known
        for known in spec.releases
        if known.identity == released.identity
        and released.training_size in (None, (known.height, known.width))
    ]
