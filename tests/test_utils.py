"""_ContextManager, ClosableQueue and what else is in `utils` and `log`."""

import asyncio
import collections.abc
import contextlib
import gc
import inspect
import logging

import pytest


class Released(Exception):
    pass


class Awaitable:
    """Can be awaited, and is no coroutine; like a Connection."""

    def __init__(self, result=None, error=None):
        self.result, self.error = result, error

    def __await__(self):
        yield from asyncio.sleep(0).__await__()
        if self.error is not None:
            raise self.error
        return self.result


async def coroutine(result=None, error=None):
    return await Awaitable(result, error)


SOURCES = [pytest.param(coroutine, id="coroutine"), pytest.param(Awaitable, id="awaitable")]


@pytest.fixture
def log():
    return []


@pytest.fixture
def manager(impl, log):
    """manager(awaitable) -> a `_ContextManager` that notes what it releases, and how."""

    async def release(obj):
        await asyncio.sleep(0)
        log.append(("release", obj))

    async def release_on_exception(obj):
        log.append(("on exception", obj))

    def make(awaitable, two=True):
        functions = (release, release_on_exception) if two else (release,)
        return impl.utils._ContextManager(awaitable, *functions)

    return make


# --- _ContextManager ------------------------------------------------------------------------------


@pytest.mark.parametrize("source", SOURCES)
async def test_await(manager, log, source):
    assert await manager(source(5)) == 5
    with pytest.raises(KeyError):
        await manager(source(error=KeyError()))
    assert log == []


@pytest.mark.parametrize("source", SOURCES)
async def test_async_with(manager, log, source):
    async with manager(source(5)) as obj:
        assert obj == 5
        assert log == []
    assert log == [("release", 5)]


async def test_async_with_exception(manager, log):
    with pytest.raises(KeyError):
        async with manager(coroutine(5)):
            raise KeyError
    with pytest.raises(KeyError):
        async with manager(coroutine(6), two=False):
            raise KeyError
    assert log == [("on exception", 5), ("release", 6)]


async def test_nothing_to_release_when_entering_fails(manager, log):
    with pytest.raises(KeyError):
        async with manager(coroutine(error=KeyError())):
            pytest.fail("not reached")
    assert log == []


async def test_object_is_kept_only_inside(manager):
    context = manager(coroutine(5))
    assert context._obj is None
    async with context:
        assert context._obj == 5
    assert context._obj is None
    await context.__aexit__(None, None, None)  # does nothing now


async def test_what_release_returns_hides_no_exception(impl):
    async def release(obj):
        return True

    for function in (release, lambda obj: Awaitable(True)):
        with pytest.raises(KeyError):
            async with impl.utils._ContextManager(coroutine(5), function):
                raise KeyError


async def test_release_that_fails(impl):
    async def release(obj):
        raise Released

    def failed(obj):
        future = asyncio.get_running_loop().create_future()
        future.set_exception(Released())
        return future

    for function in (release, failed):
        context = impl.utils._ContextManager(coroutine(5), function)
        with pytest.raises(Released):
            async with context:
                pass
        assert context._obj is None


async def test_release_may_return_a_future(impl):
    loop = asyncio.get_running_loop()
    pending = loop.create_future()
    loop.call_soon(pending.set_result, True)
    done = loop.create_future()
    done.set_result(True)
    for future in (pending, done):
        async with impl.utils._ContextManager(coroutine(5), lambda obj, future=future: future):
            pass
        assert future.done()


async def test_cancelled_release(impl):
    """The cancellation reaches what the release waits for, and comes out."""
    reached = []

    async def release(obj):
        try:
            await asyncio.sleep(10)
        except asyncio.CancelledError:
            reached.append(obj)
            raise

    async def use():
        async with impl.utils._ContextManager(coroutine(5), release):
            pass

    task = asyncio.create_task(use())
    for _ in range(3):
        await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert reached == [5]


async def test_release_that_outlives_a_cancellation(impl):
    """What it returns then hides no exception either."""

    async def release(obj):
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(10)
        return True

    async def use():
        async with impl.utils._ContextManager(coroutine(5), release):
            raise KeyError

    task = asyncio.create_task(use())
    for _ in range(3):
        await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(KeyError):
        await task


def test_is_a_coroutine(impl, manager):
    context = manager(Awaitable())
    assert asyncio.iscoroutine(context)
    assert isinstance(context, collections.abc.Coroutine)
    assert issubclass(impl.utils._ContextManager, collections.abc.Coroutine)
    assert not hasattr(context, "__dict__")


@pytest.mark.all_loops
async def test_task_of_a_coroutine(manager):
    assert await asyncio.create_task(manager(coroutine(5))) == 5
    assert await asyncio.wait_for(manager(coroutine(5)), 5) == 5
    assert await asyncio.gather(manager(coroutine(5)), manager(coroutine(6))) == [5, 6]


@pytest.mark.all_loops
async def test_task_of_an_awaitable(ours, manager):
    assert await asyncio.create_task(manager(Awaitable(5))) == 5
    assert await asyncio.wait_for(manager(Awaitable(5)), 5) == 5
    assert await asyncio.gather(manager(Awaitable(5)), manager(Awaitable(6))) == [5, 6]
    task = asyncio.create_task(manager(Awaitable(5)))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


def test_send_throw_close(ours, manager):
    for source in (coroutine, Awaitable):
        context = manager(source(5))
        assert context.send(None) is None
        with pytest.raises(StopIteration) as caught:
            context.send(None)
        assert caught.value.value == 5
        context = manager(source(5))
        context.send(None)
        context.close()
        context = manager(source(5))
        context.close()


@pytest.mark.parametrize(
    "arguments", [(KeyError,), (KeyError("x"),), (KeyError, "x"), (KeyError, KeyError("x"), None)]
)
def test_throw(ours, manager, arguments):
    for source in (coroutine, Awaitable):
        context = manager(source(5))
        context.send(None)
        with pytest.raises(KeyError):
            context.throw(*arguments)


def test_never_awaited(ours, manager):
    with pytest.warns(RuntimeWarning, match="'coroutine' was never awaited"):
        manager(coroutine())
        gc.collect()


async def test_subscript_and_subclass(impl, manager):
    class Louder(impl.utils._ContextManager[int]):
        async def __aenter__(self):
            return 2 * await super().__aenter__()

    async def release(obj):
        pass

    assert await impl.utils._ContextManager[int](coroutine(5), release) == 5
    async with Louder(coroutine(5), release) as obj:
        assert obj == 10


async def test_can_be_patched(impl, manager, monkeypatch):
    async def enter(self):
        return "patched"

    monkeypatch.setattr(impl.utils._ContextManager, "__aenter__", enter)
    context = manager(coroutine(5))
    async with context as obj:
        assert obj == "patched"
    await context


def test_parameters(impl):
    parameters = inspect.signature(impl.utils._ContextManager).parameters
    assert list(parameters) == ["coro", "release", "release_on_exception"]


async def test_iterable(impl, log):
    class Rows:
        def __init__(self):
            self.rows = iter([1, 2])

        async def __anext__(self):
            for row in self.rows:
                return row
            raise StopAsyncIteration

    async def release(obj):
        log.append("released")

    context = impl.utils._IterableContextManager[Rows](coroutine(Rows()), release)
    assert [row async for row in context] == [1, 2]
    assert log == ["released"]
    assert context._obj is None


# --- ClosableQueue --------------------------------------------------------------------------------


@pytest.fixture
def queue(impl):
    """queue() -> (a ClosableQueue, the asyncio.Queue in it)."""

    def make():
        inner = asyncio.Queue()
        return impl.utils.ClosableQueue(inner, asyncio.get_running_loop()), inner

    return make


async def reader(queue):
    """A task that waits in queue.get()."""
    task = asyncio.create_task(queue.get())
    for _ in range(3):
        await asyncio.sleep(0)
    assert not task.done()
    return task


async def test_queue_gives_what_is_put(queue):
    outer, inner = queue()
    assert outer._queue is inner
    assert outer.empty() and outer.qsize() == 0
    with pytest.raises(asyncio.QueueEmpty):
        outer.get_nowait()
    inner.put_nowait(1)
    inner.put_nowait(2)
    assert not outer.empty() and outer.qsize() == 2
    assert outer.get_nowait() == 1
    assert await outer.get() == 2


@pytest.mark.all_loops
async def test_queue_wakes_readers_in_order(queue):
    outer, inner = queue()
    readers = [await reader(outer) for _ in range(3)]
    for item in range(3):
        inner.put_nowait(item)
    assert await asyncio.gather(*readers) == [0, 1, 2]


@pytest.mark.all_loops
async def test_closing_wakes_all_readers(queue):
    outer, _ = queue()
    readers = [await reader(outer) for _ in range(3)]
    outer.close(Released("first"))
    outer.close(Released("second"))
    for task in readers:
        with pytest.raises(Released, match="first"):
            await task
    for _ in range(2):
        with pytest.raises(Released, match="first"):
            await outer.get()
        with pytest.raises(Released, match="first"):
            outer.get_nowait()


async def test_items_are_read_before_the_close(queue):
    outer, inner = queue()
    inner.put_nowait(1)
    inner.put_nowait(2)
    outer.close(Released())
    assert await outer.get() == 1
    assert outer.get_nowait() == 2
    with pytest.raises(Released):
        await outer.get()


async def test_queue_closed_and_never_read(queue):
    outer, _ = queue()
    outer.close(Released())
    del outer
    gc.collect()  # that no exception was lost is looked at after each test


async def test_cancelled_reader_takes_nothing(queue):
    outer, inner = queue()
    task = await reader(outer)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    inner.put_nowait(1)
    assert outer.get_nowait() == 1


async def test_cancelled_readers_leave_nothing_behind(ours, queue):
    outer, inner = queue()
    for _ in range(3):
        task = await reader(outer)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert not inner._getters


async def test_reader_cancelled_after_its_item_came(ours, queue):
    """The next reader gets the item."""
    outer, inner = queue()
    first, second = await reader(outer), await reader(outer)
    inner.put_nowait(1)
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    assert await asyncio.wait_for(second, 5) == 1


async def test_item_taken_before_the_reader_wakes(ours, queue):
    """It goes on waiting."""
    outer, inner = queue()
    task = await reader(outer)
    inner.put_nowait(1)
    assert outer.get_nowait() == 1
    for _ in range(3):
        await asyncio.sleep(0)
    assert not task.done()
    inner.put_nowait(2)
    assert await task == 2


async def test_iteration_ends_with_the_exception(ours, queue):
    outer, inner = queue()
    seen = []

    async def read():
        async for item in outer:
            seen.append(item)

    task = asyncio.create_task(read())
    inner.put_nowait(1)
    await asyncio.sleep(0)
    inner.put_nowait(2)
    inner.put_nowait(3)
    outer.close(Released())
    with pytest.raises(Released):
        await task
    assert seen == [1, 2, 3]


async def test_reading_makes_no_task(ours, queue):
    outer, inner = queue()
    before = asyncio.all_tasks()
    task = await reader(outer)
    assert asyncio.all_tasks() - before == {task}
    inner.put_nowait(1)
    assert await task == 1


# --- the rest -------------------------------------------------------------------------------------


async def test_running_loop(impl):
    assert impl.get_running_loop is impl.utils.get_running_loop
    assert impl.get_running_loop() is asyncio.get_running_loop()


def test_no_running_loop(impl):
    with pytest.raises(RuntimeError, match="no running event loop"):
        impl.get_running_loop()


async def test_completed_future(impl):
    future = impl.utils.create_completed_future(asyncio.get_running_loop())
    assert future.done()
    assert await future is None


def test_logger(impl):
    assert impl.log.logger is logging.getLogger("aiopg")
