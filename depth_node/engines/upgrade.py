"""Opens what can serve at once and, in the background, what is wanted more.

TensorRT takes minutes to build a plan on a small board, and what crashes in a driver takes its
process along.  So an engine that must be built, and with 'auto' every engine on a GPU, is built,
opened and held to the golden output in a process of its own first (``models build``); only when
that has succeeded does a thread of this process open it, and the pipeline takes it between two
images.  Nothing of this happens where only engines on the processor are asked for or no GPU is
there.
"""

from __future__ import annotations

import logging
import sys
import threading
import time
from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from depth_node.engines import Engine
from depth_node.engines import FramePlan
from depth_node.engines import cuda_driver
from depth_node.engines import selection
from depth_node.engines.rehearsal import rehearse
from depth_node.engines.selection import ON_GPU
from depth_node.engines.selection import passed_over
from depth_node.errors import DepthNodeError
from depth_node.errors import EngineError
from depth_node.model_folder import InputSpec
from depth_node.model_folder import ModelFolder

if TYPE_CHECKING:
    from depth_node.engines.build_process import BuildProcess

THREAD_NAME = 'engine upgrade'
COMMAND: tuple[str, ...] = (sys.executable, '-m', 'depth_node.tools.models')
"""What is run, followed by the arguments of ``build``."""

_LOG = logging.getLogger(__name__)
_REPORT_S = 5.0
_JOIN_S = 0.5
_POLL_S = 0.1


@dataclass(frozen=True)
class Wish:
    """What is to be opened."""

    folder: ModelFolder
    size: InputSpec
    precision: str
    """One of :data:`depth_node.engines.selection.PRECISIONS`."""
    threads: int

    def precision_of(self, name: str) -> str:
        """Return the precision in which an engine is opened."""
        return selection.precision_for(name, self.size, self.precision)

    def opened(
        self, engine: str, plans: Iterable[FramePlan] = ()
    ) -> tuple[Engine, tuple[str, ...]]:
        """Open the first of some engines that agrees, in this process.

        It is warm then: its first image was the golden one.

        :param plans: of the frames to come, where they are known.
        """
        opened, notes = selection.open_engine(
            self.folder,
            self.size,
            engine=engine,
            precision=self.precision,
            threads=self.threads,
        )
        try:
            for plan in plans:
                rehearse(opened, plan)
        except DepthNodeError:
            opened.close()
            raise
        return opened, notes


@dataclass(frozen=True)
class Opened:
    """What serves now and what may follow."""

    engine: Engine | None
    """None: nothing can serve before the upgrade is ready."""
    notes: tuple[str, ...]
    upgrade: Upgrade | None


def open_first(
    folder: ModelFolder, size: InputSpec, *, engine: str, precision: str, threads: int
) -> Opened:
    """Open the most wanted engine that is ready at once, and get the others before it ready.

    :param engine: as :func:`depth_node.engines.selection.names_of` takes it.
    :raises EngineError: when no engine works, nor may one come to work; other errors as
        :func:`depth_node.engines.selection.open_engine`.
    """
    wish = Wish(folder, size, precision, threads)
    names = selection.names_of(engine)
    if engine == 'auto':
        return _opened_auto(wish)
    if not set(names) & set(ON_GPU):
        return Opened(*wish.opened(engine), None)
    return _opened_list(wish, names)


def _opened_auto(wish: Wish) -> Opened:
    """Open an engine on the processor; those on the GPU follow if there is one."""
    later: list[str] = []
    notes: list[str] = []
    gpu = cuda_driver.probe()
    if gpu.problem:
        notes.append(f'{" and ".join(ON_GPU)} are passed over: {gpu.problem}')
    for name in ON_GPU if gpu.usable else ():
        problem = selection.missing(name)
        if problem is None:
            later.append(name)
        else:
            notes.append(passed_over(name, problem))
    try:
        engine, more = wish.opened('auto')
    except EngineError as error:
        if not later:
            raise
        return Opened(None, (*notes, str(error)), Upgrade(wish, later))
    return Opened(engine, (*notes, *more), Upgrade(wish, later) if later else None)


def _opened_list(wish: Wish, names: Sequence[str]) -> Opened:
    """Open the first of the named engines that is ready."""
    later: list[str] = []
    notes: list[str] = []
    engine: Engine | None = None
    for name in names:
        try:
            ready, said = selection.is_ready(
                name, wish.folder, wish.size, precision=wish.precision, threads=wish.threads
            )
            notes += said
            if not ready:
                later.append(name)
                continue
            engine, said = wish.opened(name)
        except DepthNodeError as error:
            if len(names) == 1:
                raise
            notes.append(passed_over(name, error))
        else:
            notes += said
            break
    if engine is None and not later:
        raise selection.none_works(','.join(names), wish.folder, notes)
    return Opened(engine, tuple(notes), Upgrade(wish, later) if later else None)


def is_busy() -> bool:
    """Tell whether a thread is still opening an engine that nobody waits for any more."""
    return any(thread.name == THREAD_NAME for thread in threading.enumerate())


class Upgrade:
    """Gets the first of some engines ready that works; begins when made.

    All methods may be called from any thread.

    :param names: engines, the preferred one first.
    """

    def __init__(self, wish: Wish, names: Sequence[str]) -> None:
        self._wish = wish
        self._names = tuple(names)
        self._lock = threading.Lock()
        self._closing = threading.Event()
        self._settled = threading.Event()
        self._process: BuildProcess | None = None
        self._plans: dict[str, FramePlan] = {}  # by the name of the camera
        self._engine: Engine | None = None
        self._notes: tuple[str, ...] = ()
        self._name = self._names[0]
        self._line = 'begins'
        self._began_s = self._reported_s = time.monotonic()
        self._thread = threading.Thread(target=self._run, name=THREAD_NAME, daemon=True)
        self._thread.start()

    @property
    def notes(self) -> tuple[str, ...]:
        """Return why engines were passed over, and what the one that is ready has to say."""
        with self._lock:
            return self._notes

    @property
    def settled(self) -> bool:
        """Tell whether there is nothing more to come than an engine that may wait."""
        return self._settled.is_set()

    def poll(self) -> str:
        """Return what goes on, in words; empty when nothing does."""
        with self._lock:
            what = f'{self._name} {self._wish.precision_of(self._name)}'
            if self._engine is not None:
                return f'{what} takes over with the next image'
            if self._settled.is_set():
                return ''
            return f'{what}, {time.monotonic() - self._began_s:.0f} s: {self._line}'

    def expect(self, plan: FramePlan) -> None:
        """Say of what kind the frames are, so that the engine is prepared for them."""
        self._plans = {**self._plans, plan.camera: plan}

    def take(self) -> Engine | None:
        """Hand over the engine, once; None while there is none."""
        with self._lock:
            engine, self._engine = self._engine, None
            return engine

    def wait(self, wanted: Callable[[], bool]) -> Engine:
        """Wait for the engine.

        :param wanted: asked ten times a second; False ends the wait.
        :raises EngineError: when no engine works, or it is not wanted any more.
        """
        while not self._settled.wait(_POLL_S):
            if not wanted():
                self.close()
                raise EngineError('engine', 'the end of the node', 'time to build an engine')
        engine = self.take()
        if engine is None:
            raise selection.none_works(','.join(self._names), self._wish.folder, self.notes)
        return engine

    def close(self) -> None:
        """End the process at once; an engine that nobody took is closed."""
        self._closing.set()
        with self._lock:
            process = self._process
        if process is not None:
            process.kill()
        # opening an engine cannot be broken off; the thread closes it then
        self._thread.join(_JOIN_S)
        engine = self.take()
        if engine is not None:
            engine.close()

    def _run(self) -> None:
        """Try one engine after the other."""
        try:
            for name in self._names:
                if self._attempt(name) or self._closing.is_set():
                    break
        finally:
            self._settled.set()

    def _attempt(self, name: str) -> bool:
        """Try one engine; return whether it is there."""
        with self._lock:
            self._name, self._line = name, 'begins'
            self._began_s = self._reported_s = time.monotonic()
        problem = self._try_outside(name)
        if self._closing.is_set():
            return False
        engine: Engine | None = None
        said: tuple[str, ...] = ()
        if not problem:
            self._heard('is opened')
            # whatever a library raises, the node goes on with the engine that it has
            try:
                engine, said = self._wish.opened(name, self._plans.values())
            except DepthNodeError as error:
                problem = str(error)
            except Exception as error:
                problem = f'{type(error).__name__}: {" ".join(str(error).split())}'
        if engine is None:
            said = (passed_over(name, problem),)
        with self._lock:
            self._notes += said
            if not self._closing.is_set():
                self._engine = engine
                return engine is not None
        if engine is not None:
            engine.close()
        return False

    def _try_outside(self, name: str) -> str:
        """Build and check one engine in a process of its own; return '' or why that failed."""
        # not at the head: most nodes never need what it imports
        from depth_node.engines.build_process import BuildProcess

        wish, size = self._wish, self._wish.size
        words = [
            *COMMAND, 'build', str(wish.folder.path),
            '--engine', name,
            '--precision', wish.precision_of(name),
            '--size', f'{size.width}x{size.height}',
            '--threads', str(wish.threads),
            '--for-node',
        ]  # fmt: skip
        try:
            process = BuildProcess(words)
        except OSError as error:
            return f'its process cannot be started ({error})'
        with self._lock:
            self._process = process
        try:
            # the end may have been asked for while there was no process to kill yet
            if self._closing.is_set():
                return 'it is not wanted any more'
            return process.follow(self._heard)
        except OSError as error:
            return f'its process cannot be followed ({error})'
        finally:
            with self._lock:
                self._process = None
            process.close()

    def _heard(self, line: str) -> None:
        """Keep a line, and log from time to time how it goes."""
        with self._lock:
            self._line = line or self._line
            now_s = time.monotonic()
            if now_s - self._reported_s < _REPORT_S:
                return
            self._reported_s = now_s
        _LOG.info('engine build: %s', self.poll())
