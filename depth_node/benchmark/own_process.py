"""Work in a process of its own, so that the one that measures stays small and quiet."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Callable
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any
from typing import TypeVar

from depth_node.errors import DepthNodeError
from depth_node.errors import EngineError

T = TypeVar('T')
_CACHE = 'XDG_CACHE_HOME'


def in_own_process(who: str, work: Callable[..., T], *arguments: Any) -> T:
    """Call a function in a fresh process and return its answer.

    :param who: what the work is about, for the text of errors.
    :param work: module-level function; its answer must be picklable.
    :raises EngineError: when it raises or the process ends without an answer.
    """
    context = multiprocessing.get_context('spawn')
    ours, theirs = context.Pipe()
    process = context.Process(target=_answer, args=(theirs, work, arguments), daemon=True)
    start_deaf(process)
    theirs.close()
    try:
        worked, answer = ours.recv()
        process.join()
    except EOFError:
        worked, answer = False, (f'benchmark of {who}', 'a process that ended', 'figures')
    finally:
        process.terminate()
        process.join()
    if not worked:
        raise EngineError(*answer)
    given: T = answer
    return given


def start_deaf(process: Any) -> None:
    """Start a spawned process that Ctrl-C does not reach; who waits for it decides what happens.

    Ctrl-C goes to the whole terminal.  What is ignored at the start stays ignored in the child.

    :param process: a multiprocessing.Process of the 'spawn' method; call from the main thread.
    """
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        process.start()
    finally:
        signal.signal(signal.SIGINT, before)


@contextmanager
def own_cache(folder: Path) -> Iterator[None]:
    """Let this process and those that it starts keep compiled networks in a folder.

    Networks of a measurement would push those of the user out of the user's own cache, and a
    start would be as fast as some earlier run has left it.
    """
    before = os.environ.get(_CACHE)
    os.environ[_CACHE] = str(folder)
    try:
        yield
    finally:
        del os.environ[_CACHE]
        if before is not None:
            os.environ[_CACHE] = before


def _answer(connection: Connection, work: Callable[..., object], arguments: Any) -> None:
    try:
        connection.send((True, work(*arguments)))
    except DepthNodeError as error:
        connection.send((False, (error.who, error.received, error.expected, error.remedy)))
    except Exception as error:
        received = f'{type(error).__name__}: {error}'
        connection.send((False, (f'benchmark, {work.__name__}', received, 'figures')))
