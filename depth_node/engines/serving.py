"""The engine of one input size: what serves, and the better one that may take its place."""

from __future__ import annotations

from collections.abc import Callable

from depth_node import camera
from depth_node.engines import Engine
from depth_node.engines import EngineInfo
from depth_node.engines import FramePlan
from depth_node.engines import upgrade
from depth_node.errors import EngineError
from depth_node.errors import ImageRejected
from depth_node.model_folder import InputSpec
from depth_node.model_folder import ModelFolder
from depth_node.settings import ModelSettings

REASON_BUILDING = 'engine_building'


class ServingEngine:
    """An open engine with its input buffer; used by one thread, described to any.

    :param size: one of the sizes of the model's card.
    :raises EngineError: when no engine of ``chosen`` works.
    """

    def __init__(self, folder: ModelFolder, size: InputSpec, chosen: ModelSettings) -> None:
        opened = upgrade.open_first(
            folder,
            size,
            engine=chosen.engine,
            precision=chosen.precision,
            threads=chosen.threads,
        )
        self._notes, self._upgrade = opened.notes, opened.upgrade
        self._engine = opened.engine
        card = folder.card
        self.input = camera.NetworkInput(size.height, size.width, card.mean, card.std)

    @property
    def info(self) -> EngineInfo | None:
        """Return what the engine says of itself; None while there is none."""
        return self._engine.info if self._engine is not None else None

    @property
    def notes(self) -> tuple[str, ...]:
        """Return why other engines were passed over, and what the engine has to say."""
        return self._notes + (self._upgrade.notes if self._upgrade is not None else ())

    @property
    def build(self) -> str:
        """Say how far an engine is that will take over; empty where there is none."""
        return self._upgrade.poll() if self._upgrade is not None else ''

    def wait(self, wanted: Callable[[], bool]) -> Engine:
        """Return the engine; wait for it where none serves before it is built.

        :param wanted: False ends the wait.
        :raises EngineError: when no engine works, or it is not wanted any more.
        """
        if self._engine is None and self._upgrade is not None:
            self._engine = self._upgrade.wait(wanted)
        return self._opened()

    def for_image(self, plan: FramePlan) -> Engine:
        """Return the engine for the next image; a better one that has become ready takes over.

        :param plan: of the image; the engine that is not ready yet prepares for it.
        :raises ImageRejected: while the only engine for this size is still being built.
        :raises EngineError: when that has failed.
        """
        coming = self._upgrade
        if coming is not None:
            coming.expect(plan)
            engine = coming.take()
            if engine is not None:
                if self._engine is not None:
                    self._engine.close()
                self._engine = engine
            elif self._engine is None:
                if not coming.settled:
                    raise _still_building()
                self._engine = coming.wait(lambda: True)
        return self._opened()

    def close(self) -> None:
        """Release the engine and end what is being built; calling it twice is harmless."""
        if self._upgrade is not None:
            self._upgrade.close()
        if self._engine is not None:
            self._engine.close()

    def _opened(self) -> Engine:
        if self._engine is None:
            raise EngineError('engine', 'an image before there was one', 'an open engine')
        return self._engine


def _still_building() -> ImageRejected:
    """Return the reason for which an image is dropped meanwhile."""
    return ImageRejected(
        REASON_BUILDING,
        'image',
        'one of a camera for which the engine is still being built',
        'it later',
        'Name a second engine in model.engine that serves meanwhile.',
    )
