"""An order-processing service as one writes it for aiopg: the workload of the demo.

The driver comes as the argument `aiopg`, so the same code runs on aiopg itself and on aiopgx.
Customers place orders at the same time. Each order is a transaction that takes goods from the
stock, may redeem a voucher, and is announced by NOTIFY; a worker listens to that.
"""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import psycopg2
import psycopg2.errors
from psycopg2.extras import DictCursor

SCHEMA = """
    DROP SCHEMA IF EXISTS aiopgx_orders CASCADE;
    CREATE SCHEMA aiopgx_orders;
    SET search_path = aiopgx_orders;
    CREATE TABLE product (
        id int PRIMARY KEY, name text NOT NULL, price numeric(10, 2) NOT NULL,
        stock int NOT NULL CHECK (stock >= 0));
    CREATE TABLE purchase (
        id int PRIMARY KEY, customer text NOT NULL, total numeric(10, 2) NOT NULL DEFAULT 0,
        placed timestamptz NOT NULL DEFAULT now());
    CREATE TABLE item (
        purchase int NOT NULL REFERENCES purchase, product int NOT NULL REFERENCES product,
        amount int NOT NULL, PRIMARY KEY (purchase, product));
    CREATE TABLE redeemed (voucher text PRIMARY KEY, purchase int NOT NULL REFERENCES purchase);
"""
PRODUCTS = ("apples", "bread", "cheese", "dates", "eggs", "figs", "grapes", "honey")
CLOSED = "closed"


@dataclass(frozen=True)
class Order:
    """What a customer wants: (product id, amount) pairs, perhaps with a voucher."""

    number: int
    customer: str
    items: tuple[tuple[int, int], ...]
    voucher: str | None


@dataclass
class Summary:
    """What the service did, and whether its books agree with what it was told by NOTIFY."""

    placed: int = 0
    out_of_stock: int = 0
    vouchers_refused: int = 0
    told: int = 0
    seconds: float = 0.0
    consistent: bool = False
    sales: list[Any] = field(default_factory=list)


class OutOfStock(Exception):
    """There is not enough of a product; the whole order is undone."""


def make_orders(count: int) -> Iterator[Order]:
    """Yield the same orders each time; about one voucher in three was used before."""
    dice = random.Random(1)
    for number in range(1, count + 1):
        wanted = dice.sample(range(1, len(PRODUCTS) + 1), dice.randint(1, 3))
        # In one order of products everywhere, so that transactions don't deadlock.
        items = tuple((product, dice.randint(1, 5)) for product in sorted(wanted))
        voucher = f"V{dice.randrange(count // 8 + 1)}" if dice.random() < 0.2 else None
        yield Order(number, f"customer {dice.randrange(50)}", items, voucher)


async def prepare(conn: Any) -> None:
    """Set up a connection of the pool."""
    async with conn.cursor() as cur:
        await cur.execute("SET search_path = aiopgx_orders")


async def query(
    pool: Any, operation: str, parameters: Any = None, cursor_factory: Any = None
) -> list[Any]:
    """The rows of a statement that stands for itself."""
    if hasattr(pool, "execute"):  # of aiopgx: it shares a connection with others
        cur = await pool.execute(operation, parameters, cursor_factory=cursor_factory)
        return await cur.fetchall()  # type: ignore[no-any-return]
    async with pool.acquire() as conn, conn.cursor(cursor_factory=cursor_factory) as cur:
        await cur.execute(operation, parameters)
        return await cur.fetchall()  # type: ignore[no-any-return]


async def place(pool: Any, order: Order, summary: Summary) -> None:
    """Place one order, in a transaction. Raises OutOfStock."""
    async with pool.acquire() as conn, conn.cursor(cursor_factory=DictCursor) as cur, cur.begin():
        await cur.execute(
            "INSERT INTO purchase (id, customer) VALUES (%s, %s)", (order.number, order.customer)
        )
        total = 0
        for product, amount in order.items:
            await cur.execute(
                "UPDATE product SET stock = stock - %(amount)s"
                " WHERE id = %(id)s AND stock >= %(amount)s RETURNING price",
                {"id": product, "amount": amount},
            )
            row = await cur.fetchone()
            if row is None:
                raise OutOfStock(PRODUCTS[product - 1])
            total += row["price"] * amount
            await cur.execute(
                "INSERT INTO item (purchase, product, amount) VALUES (%s, %s, %s)",
                (order.number, product, amount),
            )
        if order.voucher is not None:
            total -= await redeem(cur, order, summary)
        await cur.execute("UPDATE purchase SET total = %s WHERE id = %s", (total, order.number))
        announcement = json.dumps({"order": order.number, "total": str(total)})
        await cur.execute("SELECT pg_notify('orders', %s)", (announcement,))


async def redeem(cur: Any, order: Order, summary: Summary) -> int:
    """Return what the voucher is worth: nothing, if it was redeemed before."""
    try:
        async with cur.begin_nested():
            await cur.execute(
                "INSERT INTO redeemed (voucher, purchase) VALUES (%s, %s)",
                (order.voucher, order.number),
            )
    except psycopg2.errors.UniqueViolation:
        summary.vouchers_refused += 1
        return 0
    return 1


async def customer(
    pool: Any, orders: Iterator[Order], summary: Summary, on_order: Callable[[], None]
) -> None:
    """Place one order after the other until there are no more."""
    for order in orders:
        try:
            await place(pool, order, summary)
        except OutOfStock:
            summary.out_of_stock += 1
        else:
            summary.placed += 1
        on_order()


async def listen(conn: Any, announced: dict[int, str]) -> None:
    """Take down the number and the total of each order announced, until the shop closes."""
    while (notify := await conn.notifies.get()).payload != CLOSED:
        announcement = json.loads(notify.payload)
        announced[announcement["order"]] = announcement["total"]


async def close(pool: Any) -> None:
    """Tell the worker that no order comes any more."""
    await query(pool, "SELECT pg_notify('orders', %s)", (CLOSED,))


async def audit(pool: Any, stock: int, announced: dict[int, str], summary: Summary) -> None:
    """Compare the books: stock and sales, orders and what was announced of them."""
    totals, ((left,),), summary.sales = await asyncio.gather(
        query(pool, "SELECT id, total::text FROM purchase"),
        query(pool, "SELECT sum(stock) FROM product"),
        query(
            pool,
            "SELECT name AS product, stock, sum(amount) AS sold, sum(amount * price) AS revenue"
            " FROM product JOIN item ON item.product = product.id"
            " GROUP BY product.id ORDER BY product.id",
            cursor_factory=DictCursor,
        ),
    )
    told_all = dict(totals) == announced
    sold = sum(row["sold"] for row in summary.sales)
    summary.told = len(announced)
    summary.consistent = told_all and left + sold == stock * len(PRODUCTS)


async def serve(
    aiopg: Any,
    dsn: str,
    *,
    orders: int = 2000,
    customers: int = 20,
    on_order: Callable[[], None] = lambda: None,
) -> Summary:
    """Run the service until all orders are through, and return what it did.

    It keeps its tables in the schema aiopgx_orders, which is made anew and dropped in the end.
    """
    summary, announced = Summary(), dict[int, str]()
    stock = orders * 7 // 10
    async with aiopg.create_pool(dsn, minsize=2, maxsize=10, on_connect=prepare) as pool:
        async with pool.acquire() as conn, conn.cursor() as cur:
            await cur.execute(SCHEMA)
            for number, name in enumerate(PRODUCTS, 1):
                await cur.execute(
                    "INSERT INTO product VALUES (%s, %s, %s, %s)",
                    (number, name, number * 0.75, stock),
                )
        async with aiopg.connect(dsn) as conn, conn.cursor() as cur:
            await cur.execute("LISTEN orders")
            worker = asyncio.create_task(listen(conn, announced))
            try:
                queue, started = make_orders(orders), time.perf_counter()
                await asyncio.gather(
                    *(customer(pool, queue, summary, on_order) for _ in range(customers))
                )
                summary.seconds = time.perf_counter() - started
                await close(pool)
                await asyncio.wait_for(worker, 10)
            finally:
                worker.cancel()
        await audit(pool, stock, announced, summary)
        async with pool.acquire() as conn, conn.cursor() as cur:
            await cur.execute("DROP SCHEMA aiopgx_orders CASCADE")
    return summary
