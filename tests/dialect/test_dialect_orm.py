"""AsyncSession, streaming results, reflection and Alembic."""

import asyncio

import psycopg2
import pytest
import sqlalchemy as sa
from sqlalchemy import orm
from sqlalchemy.ext.asyncio import AsyncAttrs, AsyncSession
from support import scalar


class Base(AsyncAttrs, orm.DeclarativeBase):
    pass


class Author(Base):
    __tablename__ = "authors"
    id: orm.Mapped[int] = orm.mapped_column(primary_key=True)
    name: orm.Mapped[str] = orm.mapped_column(unique=True)
    books: orm.Mapped[list["Book"]] = orm.relationship(
        back_populates="author", cascade="all, delete-orphan", order_by="Book.id"
    )


class Book(Base):
    __tablename__ = "books"
    id: orm.Mapped[int] = orm.mapped_column(primary_key=True)
    title: orm.Mapped[str]
    author_id: orm.Mapped[int] = orm.mapped_column(sa.ForeignKey("authors.id"))
    author: orm.Mapped[Author] = orm.relationship(back_populates="books")


@pytest.fixture
def tables(url):
    sync = sa.create_engine(url.set(drivername="postgresql+psycopg2"))
    Base.metadata.create_all(sync)
    yield
    Base.metadata.drop_all(sync)
    sync.dispose()


NUMBERS = sa.text("SELECT g FROM generate_series(1, 5000) g")


def cursors(connection):
    return connection.scalar(sa.text("SELECT count(*) FROM pg_cursors"))


async def test_objects_and_relationships(engine, tables, side):
    made = engine()
    async with AsyncSession(made, expire_on_commit=False) as session, session.begin():
        author = Author(name="A")
        author.books = [Book(title=f"t{i}") for i in range(30)]
        session.add_all([author, Author(name="B")])
    assert author.id and [book.id for book in author.books] == sorted(b.id for b in author.books)
    async with AsyncSession(made) as session:
        query = sa.select(Author).options(orm.selectinload(Author.books)).order_by(Author.name)
        first, second = (await session.scalars(query)).all()
        assert [book.title for book in first.books] == [f"t{i}" for i in range(30)]
        assert second.books == []
        book = await session.get(Book, first.books[0].id)
        book.title = "changed"
        await session.commit()
        await session.refresh(book)
        assert await book.awaitable_attrs.author is first
        joined = sa.select(Author.name, sa.func.count()).join(Author.books).group_by(Author.name)
        assert (await session.execute(joined)).all() == [("A", 30)]
        await session.delete(first)
        await session.commit()
    assert scalar(side, "SELECT count(*) FROM books") == 0


async def test_a_flush_that_fails_leaves_a_usable_session(engine, tables):
    async with AsyncSession(engine()) as session:
        session.add_all([Author(name="A"), Author(name="A")])
        with pytest.raises(sa.exc.IntegrityError) as caught:
            await session.flush()
        assert isinstance(caught.value.orig, psycopg2.errors.UniqueViolation)
        assert caught.value.orig.diag.constraint_name == "authors_name_key"
        await session.rollback()
        async with session.begin_nested():
            session.add(Author(name="B"))
        await session.commit()
        assert (await session.scalars(sa.select(Author.name))).all() == ["B"]


async def test_lazy_loading_outside_of_a_greenlet_harms_nothing(engine, tables):
    async with AsyncSession(engine()) as session:
        session.add(Author(name="A"))
        await session.commit()
        author = (await session.scalars(sa.select(Author))).one()
        with pytest.raises(sa.exc.MissingGreenlet):
            author.books  # noqa: B018
        assert await author.awaitable_attrs.books == []
        assert await session.scalar(sa.select(Author.name)) == "A"


async def test_run_sync(engine, tables):
    def work(session):
        session.add(Author(name="A", books=[Book(title="t")]))
        session.flush()
        return session.query(Author).one().books[0].title

    async with AsyncSession(engine()) as session:
        assert await session.run_sync(work) == "t"


# --- streaming ------------------------------------------------------------------------------------


@pytest.mark.all_loops
async def test_stream(engine):
    async with engine().connect() as connection:
        result = await connection.stream(NUMBERS)
        seen = [row.g async for row in result]
        assert seen == list(range(1, 5001))
        assert await cursors(connection) == 0


async def test_stream_in_partitions_with_other_statements_between(engine):
    async with engine().connect() as connection:
        result = await connection.stream(NUMBERS)
        sizes = []
        async for rows in result.partitions(700):
            sizes.append(len(rows))
            assert await cursors(connection) == 1
        assert sizes == [700] * 7 + [100]


async def test_a_stream_that_is_closed_early_frees_the_servers_cursor(engine):
    async with engine().connect() as connection:
        result = await connection.stream(NUMBERS)
        assert (await result.fetchone()).g == 1
        assert len(await result.fetchmany(10)) == 10
        assert await cursors(connection) == 1
        await result.close()
        assert await cursors(connection) == 0


async def test_stream_of_objects(engine, tables):
    async with AsyncSession(engine()) as session:
        session.add_all([Author(name=f"{i:04}") for i in range(2000)])
        await session.commit()
        query = sa.select(Author).order_by(Author.name).execution_options(yield_per=300)
        names = [author.name async for author in await session.stream_scalars(query)]
        assert names == [f"{i:04}" for i in range(2000)]


async def test_streams_are_those_of_the_psycopg2_dialect(both):
    def body(connection):
        streaming = connection.execution_options(stream_results=True, max_row_buffer=20)
        result = streaming.execute(NUMBERS)
        seen = [result.keys(), result.fetchone(), result.fetchmany(30), result.rowcount]
        seen += [result.cursor.rowcount, result.cursor.description[0].name]
        result.close()
        none = streaming.execute(sa.text("SELECT 1 AS one WHERE false"))
        seen += [none.keys(), none.all()]
        return [list(x) if isinstance(x, sa.engine.result.RMKeyView) else x for x in seen]

    await both(body)


async def test_errors_while_streaming(both, loop_errors):
    def body(connection):
        streaming = connection.execution_options(stream_results=True, max_row_buffer=20)
        return streaming.execute(sa.text("SELECT 1 / (40 - g) FROM generate_series(1, 50) g")).all()

    assert (await both(body))[2] == "22012"

    def syntax(connection):
        return connection.execution_options(stream_results=True).execute(sa.text("SELECT nothing"))

    assert (await both(syntax))[2] == "42703"

    def slow(connection):
        connection.exec_driver_sql("SET LOCAL statement_timeout = 100")
        streaming = connection.execution_options(stream_results=True)
        return streaming.execute(sa.text("SELECT pg_sleep(0.01) FROM generate_series(1, 50)")).all()

    assert (await both(slow))[2] == "57014"
    assert not loop_errors


async def test_named_cursors_of_the_adapted_connection(engine, url):
    def body(conn):
        conn.cursor().execute("SELECT 1")
        cursor = conn.cursor("mine", scrollable=True)
        cursor.execute("SELECT g FROM generate_series(1, 30) g WHERE g > %s", (5,))
        seen = [cursor.name, cursor.description, cursor.rowcount, cursor.query]
        seen += [cursor.fetchone(), cursor.fetchmany(3), cursor.rowcount, cursor.rownumber]
        cursor.scroll(-2)
        cursor.itersize = 4
        seen += [list(cursor), cursor.fetchall(), cursor.closed]
        for step in (
            lambda: cursor.execute("SELECT 1"),
            lambda: cursor.executemany("SELECT 1", [()]),
            lambda: cursor.callproc("now"),
        ):
            with pytest.raises(psycopg2.ProgrammingError) as caught:
                step()
            seen.append(str(caught.value))
        cursor.close()
        held = conn.cursor("held", withhold=True)
        held.execute("SELECT 1")
        conn.commit()
        seen += [held.fetchall(), cursor.closed]
        held.close()
        conn.rollback()
        return seen

    reference = psycopg2.connect(url.set(drivername="postgresql").render_as_string(False))
    expected = body(reference)
    reference.close()
    async with engine().connect() as connection:
        ours = await connection.run_sync(lambda c: body(c.connection.dbapi_connection))
    assert ours == expected


async def test_a_stream_that_was_forgotten_does_not_disturb(engine):
    async with engine().connect() as connection:
        result = await connection.stream(NUMBERS)
        await result.fetchone()
        del result
        await asyncio.sleep(0)
        assert await connection.scalar(sa.text("SELECT 1")) == 1
        await connection.rollback()
        assert await cursors(connection) == 0


# --- the schema -----------------------------------------------------------------------------------


async def test_reflection(both, tables):
    def body(connection):
        inspector = sa.inspect(connection)
        metadata = sa.MetaData()
        metadata.reflect(connection)
        books = metadata.tables["books"]
        return (
            sorted(inspector.get_table_names()),
            [(c["name"], str(c["type"]), c["nullable"]) for c in inspector.get_columns("books")],
            inspector.get_pk_constraint("books"),
            inspector.get_foreign_keys("books"),
            inspector.get_unique_constraints("authors"),
            [str(key.target_fullname) for key in books.foreign_keys],
        )

    assert (await both(body))[0] == ["authors", "books"]


async def test_alembic_migrations(engine, url, side, tmp_path):
    from alembic import command
    from alembic.config import Config

    scripts = tmp_path / "migrations"
    config = Config()
    config.set_main_option("script_location", str(scripts))
    config.set_main_option("path_separator", "os")
    config.set_main_option("sqlalchemy.url", url.render_as_string(False).replace("%", "%%"))
    config.config_file_name = str(tmp_path / "alembic.ini")
    config.print_stdout = lambda *_, **__: None
    command.init(config, str(scripts), template="async")
    env = (scripts / "env.py").read_text().replace("target_metadata = None", TARGET)
    # it would silence the loggers of all tests to come
    (scripts / "env.py").write_text(env.replace("fileConfig(config.config_file_name)", "pass"))
    await asyncio.to_thread(command.revision, config, "first", autogenerate=True)
    await asyncio.to_thread(command.upgrade, config, "head")
    assert scalar(side, "SELECT to_regclass('notes')::text") == "notes"
    await asyncio.to_thread(command.check, config)
    await asyncio.to_thread(command.downgrade, config, "base")
    assert scalar(side, "SELECT to_regclass('notes')::text") is None


TARGET = """
import sqlalchemy as sa

target_metadata = sa.MetaData()
sa.Table("notes", target_metadata, sa.Column("id", sa.Integer, primary_key=True))
"""
