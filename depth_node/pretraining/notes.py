"""What a card says of its model in words, derived from its figures."""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence

_TRAINED_ON = 'Trained on procedural scenes alone, on no photograph.'
_GUESSES = (
    ('abs_rel_image_median', "the constant depth of each image's own median"),
    ('abs_rel_rows_median_scaled', 'the best depth per row of the image, known in hindsight,'),
)
_SENSOR = 'It says how far things look, not how far they are: check before you drive by it.'


def notes_of(metrics: Mapping[str, Mapping[str, float]]) -> str:
    """Return the notes of a card, worst first, as its figures have them.

    :param metrics: data set -> what :func:`depth_node.pretraining.views.judged` returned.
    """
    sentences = []
    for guess, what in _GUESSES:
        lost = [name for name, found in metrics.items() if not _beats(found, guess)]
        if lost:
            sentences.append(f'Worse than {what} on {_listed(lost)}.')
    if metrics and not sentences:
        sentences.append(
            'Better than a constant depth and than one depth per row on every data set that it '
            'was judged by.'
        )
    for name, found in metrics.items():
        sentences.append(
            f'{name}: Abs Rel {found["abs_rel"]:.3f}, after median scaling '
            f"{found['abs_rel_median_scaled']:.3f} where each image's own median depth has "
            f'{found["abs_rel_image_median"]:.3f}.'
        )
    return ' '.join([*sentences, _TRAINED_ON, _SENSOR])


def _beats(found: Mapping[str, float], guess: str) -> bool:
    return found['abs_rel_median_scaled'] < found[guess]


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f'{", ".join(names[:-1])} and {names[-1]}'
