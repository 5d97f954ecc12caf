"""Who loses what, where something goes wrong: `python bench/drill.py [--rounds 5] [library ...]`.

The libraries: aiopgx, aiopg, asyncpg, psycopg (with psycopg_pool) and, if it is asked for,
psycopg-check (which checks each connection). Each drill, a method of `Drill`, runs against a
throw-away server, on asyncio, in a process of its own. One line for each says how many tries there
were, and what was lost:

  hung       who got neither an answer nor an error within 10 s
  late       who was told more than half a second after the timeout
  wrong      results of somebody else, or parts of results
  places     of the pool, in which nobody has a connection and nobody can have one
  sessions   that the server has and the pool does not, a second later
  queries    that the server still executes for nobody, a second later
  overtaken  who was served more than 10 places from the own place in the queue
  clear      requests to cancel that are not encrypted, though the session is
  errors     of those who had done nothing to deserve them (told, not lost)

No round begins after a minute.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import functools
import inspect
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import psycopg2
from harness import EXECUTED, HUNG, OURS, SLEEP, Harness
from pools import LIBRARIES, SIZE

from aiopgx.tools import server

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from certificates import Certificate
from drills import Cancelled
from proxy import CANCEL_REQUEST, Proxy
from support import message
from tamper import CHANGES, tampering

ROWS = "SELECT n FROM generate_series(1, 700) n"
# The server has sent a part of it when it pauses.
HALF = "SELECT n FROM generate_series(1, 3000) n WHERE n <> 2000 OR pg_sleep(5)::text = ''"
KILL = f"SELECT count(pg_terminate_backend(pid)) {OURS}"
# Seconds.
ENOUGH = 60
LIMIT = 240


async def itself(cancelled: Cancelled) -> Any:
    """A task that is cancelled so."""
    task = asyncio.current_task()
    assert task is not None
    return await cancelled.run(task.cancel)


def persistently(loop: asyncio.AbstractEventLoop, coro: Coroutine[Any, Any, Any]) -> Any:
    """Run it, though a KeyboardInterrupt may come again, from where a library has kept it."""
    task = loop.create_task(coro)
    for _ in range(100):
        with contextlib.suppress(KeyboardInterrupt):
            return loop.run_until_complete(task)


def has_ended(pid: int) -> bool:
    return os.waitpid(pid, os.WNOHANG) != (0, 0)


class Drill(Harness):
    """One drill a method."""

    # --- given up ---------------------------------------------------------------------------------

    async def storm(self) -> None:
        """Of 500 tasks on 10 connections a third are cancelled, at some moment."""
        await asyncio.gather(
            *(
                self.one(0.002, self.chance.random() * 0.2 if n % 3 == 0 else None)
                for n in range(self.times(500))
            )
        )

    async def steps(self) -> None:
        """Cancelled at the k-th suspension, as it begins and as it ends, and after k turns."""
        for k in range(self.times(20)):
            for when in ("waiting", "answered"):
                asked = Cancelled(self.pool.ask("SELECT -1"), k, when)
                await self.judge(itself(asked), [-1], True)
                await self.all_right()
        for turns in range(self.times(61)):
            task = asyncio.ensure_future(self.pool.ask("SELECT -1"))
            for _ in range(turns):
                await asyncio.sleep(0)
            task.cancel()
            await self.judge(task, [-1], True)
            await self.all_right()

    async def handed(self) -> None:
        """10 who wait are cancelled in the turn in which a connection is handed to them."""
        for k in range(6):
            going = asyncio.Event()
            asked = [self.pool.ask("SELECT 1", going.wait) for _ in range(SIZE)]
            holders = asyncio.gather(*(self.judge(ask, [1], False) for ask in asked))
            await asyncio.sleep(0.05)
            waiting = [Cancelled(self.pool.ask("SELECT 2"), k, "answered") for _ in range(SIZE)]
            waiters = asyncio.gather(*(self.judge(itself(waiter), [2], True) for waiter in waiting))
            await asyncio.sleep(0.05)
            going.set()
            await asyncio.gather(holders, waiters)
            await self.places()

    async def wave(self) -> None:
        """All who have a connection are cancelled, 50 others wait."""
        holders = [self.one(20, 0.2) for _ in range(SIZE)]
        await asyncio.gather(*holders, self.later())

    async def later(self) -> None:
        await asyncio.sleep(0.1)
        await asyncio.gather(*(self.one(0) for _ in range(50)))

    async def connecting(self) -> None:
        """All sessions end; 30 tasks are cancelled while the pool connects anew."""
        for _ in range(self.times(20)):
            self.command(KILL)
            await asyncio.gather(*(self.one(0.01, self.chance.random() * 0.05) for _ in range(30)))
        await self.places()

    async def left(self) -> None:
        """10 queries of 30 s are cancelled, 10 time out: does the server go on with them?"""
        for seconds in (None, 0.3):
            tasks = [
                asyncio.ensure_future(asyncio.wait_for(self.pool.ask(SLEEP.format(1, 30)), seconds))
                for _ in range(SIZE)
            ]
            await asyncio.sleep(0.3)
            if seconds is None:
                for task in tasks:
                    task.cancel()
            await asyncio.gather(*(self.judge(task, [1], True) for task in tasks))
            self.lost["queries"] += await self.beyond(0, EXECUTED)
            await self.all_right()
            self.command(f"{KILL} AND {EXECUTED}")

    async def fair(self) -> None:
        """1,000 wait for 10 connections: in which order are they served?"""
        served: list[int] = []

        def asked(number: int) -> Coroutine[Any, Any, list[int]]:
            async def held() -> None:
                served.append(number)

            return self.pool.ask(SLEEP.format(number, 0), held)

        count = self.times(1000)
        await asyncio.gather(*(self.judge(asked(n), [n], False) for n in range(count)))
        self.lost["overtaken"] += sum(abs(n - place) > SIZE for place, n in enumerate(served))

    # --- the server, the link ---------------------------------------------------------------------

    async def cut(self) -> None:
        """The link ends within a result, at 30 places, by FIN and by RST."""
        whole = list(range(1, 701))
        for number in range(self.times(30)):
            self.proxy.cut_after(1 + number * 97, reset=number % 2 == 1)
            await self.judge(self.pool.ask(ROWS), whole, True)
            self.proxy.cut = None
            with contextlib.suppress(Exception):  # until all is well again
                await asyncio.wait_for(self.pool.ask("SELECT 1"), 5)

    async def killed(self) -> None:
        """All idle connections of the pool are ended by the server, then it is used."""
        self.command(KILL)
        await asyncio.sleep(0.2)
        await self.all_right()

    async def middle(self) -> None:
        """10 backends are terminated, one is killed by SIGKILL, when half of a result is sent."""
        whole = list(range(1, 3001))
        for kill in (self.terminate, self.sigkill):
            asked = [self.judge(self.pool.ask(HALF), whole, True) for _ in range(SIZE)]
            await asyncio.gather(*asked, kill())
            await asyncio.sleep(0.5)
            await self.all_right()

    async def terminate(self) -> None:
        await asyncio.sleep(0.3)
        self.command(KILL)

    async def sigkill(self) -> None:
        await asyncio.sleep(0.3)
        pid = self.command(f"SELECT min(pid) {OURS}")
        os.kill(pid, signal.SIGKILL)  # which ends all sessions
        await asyncio.sleep(0.3)
        while True:
            with contextlib.suppress(psycopg2.OperationalError):
                self.command("SELECT 1")
                return
            await asyncio.sleep(0.05)

    async def restart(self) -> None:
        """The server restarts under 50 clients: all must be right from 2 s after it."""
        await self.under_clients(self.restarted, HUNG)

    async def restarted(self) -> None:
        await asyncio.to_thread(self.server.restart)

    async def down(self) -> None:
        """The server is down for 3 s under 50 clients with timeouts of 1 s; as `restart`."""
        await self.under_clients(self.stopped, 1)

    async def stopped(self) -> None:
        await asyncio.to_thread(self.server.stop)
        before = len(self.proxy.starts)
        await asyncio.sleep(3)
        self.connects += len(self.proxy.starts) - before
        await self.restarted()

    async def under_clients(
        self, trouble: Callable[[], Coroutine[Any, Any, None]], timeout: float
    ) -> None:
        over = stopping = False

        async def client() -> None:
            while not stopping:
                number = next(self.numbers)
                asked = asyncio.wait_for(self.pool.ask(SLEEP.format(number, 0.002)), timeout)
                await self.judge(asked, [number], not over, timeout)
                await asyncio.sleep(0.02)

        clients = [asyncio.ensure_future(client()) for _ in range(50)]
        await asyncio.sleep(0.3)
        await trouble()
        await asyncio.sleep(2)
        over = True
        await asyncio.sleep(1)
        stopping = True
        await asyncio.gather(*clients)

    @contextlib.contextmanager
    def frozen_link(self) -> Iterator[None]:
        self.proxy.held = self.proxy.muted = True
        yield
        self.proxy.held = self.proxy.muted = False

    async def frozen(self) -> None:
        """The link freezes under 10 queries with timeouts of 1 s; under a pool that is closed."""
        with self.frozen_link():
            await asyncio.gather(*(self.in_a_second() for _ in range(SIZE)))
        await asyncio.sleep(0.5)
        await self.all_right()
        pool = await self.opened(self.proxy.port)
        users = asyncio.gather(*(self.in_a_second(pool, 20) for _ in range(SIZE // 2)))
        await asyncio.sleep(0.3)
        with self.frozen_link():
            await self.judge(pool.end(), None, False)
        await users

    async def damage(self) -> None:
        """What the server sends is damaged at random; who asks when that is over must be right."""
        async with tampering(self.server.port) as middle:
            pool = await self.opened(middle.port, sslmode="disable", gssencmode="disable")
            for number in range(self.times(30)):
                if number % 2:
                    middle.spoil = self.spoil
                else:
                    middle.tamper = self.tamper
                asked = [asyncio.wait_for(pool.ask(ROWS), 0.5) for _ in range(SIZE)]
                await asyncio.gather(*(self.judge(ask, None, True) for ask in asked))
                middle.spoil = middle.tamper = None
                await self.all_right(pool, deserved=True)
            await self.judge(pool.end(), None, False)

    def spoil(self, data: bytes) -> bytes:
        place = self.chance.randrange(len(data) or 1)
        return data[:place] + self.chance.randbytes(4) + data[place + 4 :]

    def tamper(self, kind: bytes, body: bytes) -> bytes:
        if self.chance.random() < 0.98 and kind == b"D":
            return bytes(message(kind, body))
        return bytes(self.chance.choice(list(CHANGES.values()))(kind, body))

    async def clear(self) -> None:
        """10 queries are cancelled over TLS: can the requests to cancel them be read on the way?"""
        binaries = server.find_binaries()
        with Certificate() as made:
            files = {"ssl_cert_file": made.certificate, "ssl_key_file": made.key}
            with server.Cluster(binaries, {"ssl": "on", **files}) as secure:
                proxy = Proxy(secure.port)
                pool = await self.opened(proxy.port, sslmode="require")
                tasks = [asyncio.ensure_future(pool.ask(SLEEP.format(1, 30))) for _ in range(SIZE)]
                await asyncio.sleep(0.3)
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*(self.judge(task, [1], True) for task in tasks))
                self.lost["queries"] += await self.beyond(0, EXECUTED, secure.dsn)
                self.lost["clear"] += sum(
                    start.startswith(CANCEL_REQUEST) for start in proxy.starts
                )
                await self.judge(pool.end(), None, False)
                proxy.stop()

    # --- the process ------------------------------------------------------------------------------

    def interrupted(self, loop: asyncio.AbstractEventLoop) -> None:
        """KeyboardInterrupt under 20 clients; they are cancelled, and the loop is used further."""
        signal.signal(signal.SIGALRM, signal.default_int_handler)
        for _ in range(self.times(50)):
            self.tries += 1
            before = asyncio.all_tasks(loop)
            for _ in range(2 * SIZE):
                loop.create_task(self.go_on())
            with contextlib.suppress(KeyboardInterrupt):
                signal.setitimer(signal.ITIMER_REAL, self.chance.uniform(0.001, 0.02))
                loop.run_until_complete(asyncio.sleep(0.2))
            signal.setitimer(signal.ITIMER_REAL, 0)
            stuck = persistently(loop, self.ended(before))
            lost = self.lost["places"]
            persistently(loop, self.places(max(0, SIZE - stuck)))
            if stuck or self.lost["places"] > lost:
                persistently(loop, self.another_pool())

    async def go_on(self) -> None:
        while True:
            number = next(self.numbers)
            self.lost["wrong"] += await self.pool.ask(SLEEP.format(number, 0)) != [number]

    async def ended(self, before: set[asyncio.Task[Any]]) -> int:
        """Cancel all tasks since `before`. How many go on: asyncio's own loss.

        It was interrupted between taking a callback from its queue and calling it.
        """
        tasks = asyncio.all_tasks() - before - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=0.5)
        return sum(not task.done() for task in tasks)

    async def another_pool(self) -> None:
        with contextlib.suppress(Exception):
            await asyncio.wait_for(self.pool.end(), 1)
        self.pool = await self.opened(self.proxy.port)

    async def forked(self) -> None:
        """The process forks, and the child ends by sys.exit(), with garbage collection."""
        pid = os.fork()
        if pid == 0:
            os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
            sys.exit()
        # No thread may wait for it: asyncio's child unregisters what wakes its parent's loop up.
        while not has_ended(pid):  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        for _ in range(3):
            await self.all_right()


DRILLS = [
    *("storm", "steps", "handed", "wave", "connecting", "left", "fair"),
    *("cut", "killed", "middle", "restart", "down", "frozen", "damage", "clear"),
    *("interrupted", "forked"),
]


def run(library: str, drill: str, options: argparse.Namespace, running: server.Server) -> str:
    """What a library loses in a drill; in words."""
    start = time.monotonic()
    loop = asyncio.new_event_loop()
    loop.set_exception_handler(lambda loop, context: None)
    proxy = Proxy(running.port)
    try:
        drilled = Drill(running, proxy, library, options.short, options.patience)
        # What the proxy has is the child's as well.
        port = running.port if drill == "forked" else proxy.port
        drilled.pool = loop.run_until_complete(drilled.opened(port))
        method = getattr(drilled, drill)
        for _ in range(options.rounds):
            if inspect.iscoroutinefunction(method):
                loop.run_until_complete(method())
            else:
                method(loop)
            if time.monotonic() > start + ENOUGH:
                break
        if drill != "interrupted":  # whose lost tasks keep what they have
            loop.run_until_complete(drilled.look_around())
    finally:
        proxy.stop()
    lost = ", ".join(f"{count} {name}" for name, count in drilled.lost.items() if count)
    connects = f" ({drilled.connects} connects)" if drilled.connects else ""
    return f"{drilled.tries} tries: {lost or 'nothing lost'}{connects}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("libraries", nargs="*", default=list(LIBRARIES))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--drill", choices=DRILLS, nargs="*", default=DRILLS, help="these only")
    parser.add_argument("--short", action="store_true", help="fewer tries")
    parser.add_argument("--inside", action="store_true", help="all in this process")
    parser.add_argument("--patience", type=float, default=1, help="seconds until something is late")
    options = parser.parse_args()
    logging.disable()
    with contextlib.ExitStack() as stack:
        todo: Callable[[str, str, argparse.Namespace], str] = in_a_process
        if options.inside:
            running = stack.enter_context(server.Cluster(server.find_binaries()))
            todo = functools.partial(run, running=running)
        for drill in options.drill:
            for library in options.libraries:
                print(f"{drill:11} {library:13}", todo(library, drill, options), flush=True)


def in_a_process(library: str, drill: str, options: argparse.Namespace) -> str:
    command = [sys.executable, "-W", "ignore", __file__, library, "--inside", "--drill", drill]
    command += ["--rounds", str(options.rounds), "--patience", str(options.patience)]
    command += ["--short"] * options.short
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT)
    except subprocess.TimeoutExpired:
        return f"did not end within {LIMIT} s"
    lines = done.stdout.splitlines() or done.stderr.splitlines() or [""]
    said = lines[-1].removeprefix(f"{drill:11} {library:13} ")
    return said if not done.returncode else f"ended with {done.returncode}: {said}"


if __name__ == "__main__":
    main()
