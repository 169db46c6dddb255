"""A link behind Sentinels that say what a test wants; what real ones do is in `tests/integration/test_sentinel.py`."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import hiredis
import pytest
import redis
from tests.workers.doubles import until

from pushfleet import AsyncProducer, OfflineMessage, Producer
from pushfleet.sentinel import Answer, Place, SentinelAddress, Sighting
from pushfleet_workers import redis_link, redis_sentinels
from pushfleet_workers.errors import RedisUnusable
from pushfleet_workers.fakecloud.certs import make_certificates
from pushfleet_workers.redis_address import read_url
from pushfleet_workers.redis_link import Link, LinkLost, ReplyError
from pushfleet_workers.redis_sentinels import troubles_in
from pushfleet_workers.redis_server import EmbeddedRedis, free_port


@dataclass
class Sayer:
    """A Sentinel that names *port* for the master `fleet`."""

    port: int = 0
    epoch: int = 1
    flags: str = "master"
    hangs: bool = False
    password: str = ""
    listens_on: int = 0
    asked: int = 0
    unanswered_max: int = 0
    """Commands that one connection has brought in vain."""

    logins: list[list[bytes]] = field(default_factory=list)

    async def talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        parser = hiredis.Reader()
        unanswered = 0
        try:
            while data := await reader.read(4_096):
                parser.feed(data)
                while isinstance(command := parser.gets(), list):
                    if self.hangs:
                        unanswered += 1
                        self.unanswered_max = max(self.unanswered_max, unanswered)
                    else:
                        writer.write(self.answer(command))
        finally:
            writer.close()

    def answer(self, command: list[bytes]) -> bytes:
        if command[0] == b"AUTH":
            self.logins.append(command[1:])
        if command[0] != b"SENTINEL":
            return b"+OK\r\n"
        if self.password and not self.logins:
            return b"-NOAUTH Authentication required.\r\n"
        self.asked += command[1] == b"MASTER"
        if command[2] != b"fleet" or not self.port:
            return b"*-1\r\n" if command[1] != b"MASTER" else b"-ERR No such master with that name\r\n"
        if command[1] == b"MASTER":
            facts = ["ip", "127.0.0.1", "port", self.port, "flags", self.flags, "config-epoch", self.epoch]
            return hiredis.pack_command(tuple(map(str, facts)))
        return hiredis.pack_command(("127.0.0.1", str(self.port)))


@asynccontextmanager
async def sayers(*some: Sayer, tls: ssl.SSLContext | None = None) -> AsyncIterator[str]:
    """They listen; gives the URL."""
    async with AsyncExitStack() as stack:
        for one in some:
            listener = await stack.enter_async_context(await asyncio.start_server(one.talk, "127.0.0.1", 0, ssl=tls))
            one.listens_on = listener.sockets[0].getsockname()[1]
        yield f"redis+sentinel://{','.join(f'127.0.0.1:{one.listens_on}' for one in some)}/fleet/0"


@asynccontextmanager
async def behind_tls(port: int, context: ssl.SSLContext) -> AsyncIterator[int]:
    """The port where the server on *port* speaks TLS."""

    async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while data := await reader.read(65_536):
                writer.write(data)
        writer.close()

    async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection("127.0.0.1", port)
        await asyncio.gather(carry(reader, back), carry(there, writer))

    async with await asyncio.start_server(relay, "127.0.0.1", 0, ssl=context) as listener:
        yield listener.sockets[0].getsockname()[1]


Scenario = Callable[[Link], Awaitable[None]]


def on_link(scenario: Scenario, *some: Sayer, query: str = "") -> None:
    async def run() -> None:
        async with sayers(*some) as url:
            link = Link(url + query)
            try:
                await scenario(link)
            finally:
                await link.close()
                # Their connections must be gone before the listeners wait for them.
                await asyncio.sleep(0.01)

    asyncio.run(run())


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(redis_link, "_WATCH_INTERVAL_S", 0.02)
    monkeypatch.setattr(redis_sentinels, "_ANSWER_S", 0.3)


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[EmbeddedRedis]]:
    """Two that take themselves for masters."""
    with EmbeddedRedis(tmp_path_factory.mktemp("a")) as one, EmbeddedRedis(tmp_path_factory.mktemp("b")) as two:
        yield [one, two]


async def port_of(link: Link) -> int:
    info = await link.call("INFO", "server")
    return int(dict(line.split(":", 1) for line in info.decode().splitlines() if ":" in line)["tcp_port"])


def test_it_goes_where_the_newest_configuration_says(servers: list[EmbeddedRedis]) -> None:
    old, new = servers

    async def scenario(link: Link) -> None:
        assert await port_of(link) == new.port
        assert link.shown == f"127.0.0.1:{new.port}/0 (master 'fleet')"

    on_link(scenario, Sayer(old.port, 1), Sayer(new.port, 2), Sayer(old.port, 1))


def test_sentinels_that_are_gone_hang_or_know_nothing_hold_nobody_up(servers: list[EmbeddedRedis]) -> None:
    async def scenario(link: Link) -> None:
        assert await port_of(link) == servers[0].port

    on_link(scenario, Sayer(hangs=True), Sayer(servers[0].port), Sayer())

    async def run() -> None:
        async with sayers(Sayer(servers[0].port)) as url:
            link = Link(url.replace("://", f"://127.0.0.1:{free_port()},"))
            await scenario(link)
            await link.close()
            await asyncio.sleep(0.01)

    asyncio.run(run())


def test_it_leaves_a_master_when_they_name_another_one(servers: list[EmbeddedRedis]) -> None:
    old, new = servers
    some = [Sayer(old.port), Sayer(old.port), Sayer(old.port)]

    async def scenario(link: Link) -> None:
        assert await port_of(link) == old.port
        history = link.history
        blocked = asyncio.ensure_future(link.call("BLPOP", "nothing", 0))
        some[1].port, some[1].epoch = new.port, 2
        with pytest.raises(LinkLost):
            await asyncio.wait_for(blocked, 5)
        assert await port_of(link) == new.port
        assert link.history != history

    on_link(scenario, *some)


def test_it_stays_while_they_are_silent_or_only_one_that_is_behind_says_otherwise(
    servers: list[EmbeddedRedis],
) -> None:
    one, other = servers
    some = [Sayer(one.port, 7), Sayer(one.port, 7)]

    async def scenario(link: Link) -> None:
        before = await link.call("CLIENT", "ID")
        some[1].port, some[1].epoch = other.port, 6
        asked = some[0].asked
        await until(lambda: some[0].asked > asked + 3)
        some[0].hangs = some[1].hangs = True
        await asyncio.sleep(0.4)
        assert await link.call("CLIENT", "ID") == before
        some[0].hangs = some[1].hangs = False
        some[0].flags = some[1].flags = "master,s_down,o_down"
        asked = some[0].asked
        await until(lambda: some[0].asked > asked + 3)
        assert await link.call("CLIENT", "ID") == before

    on_link(scenario, *some)


def test_questions_do_not_pile_up_at_one_that_hangs(servers: list[EmbeddedRedis]) -> None:
    some = [Sayer(servers[0].port) for _ in range(3)]

    async def scenario(link: Link) -> None:
        await link.call("PING")
        some[2].hangs = True
        asked = some[0].asked
        await until(lambda: some[0].asked > asked + 5)
        assert 1 <= some[2].unanswered_max <= 3, "what one question has, or the greeting"
        some[2].hangs = False
        asked = some[2].asked
        await until(lambda: some[2].asked > asked)

    on_link(scenario, *some)


def test_a_server_that_is_no_master_is_not_taken(servers: list[EmbeddedRedis]) -> None:
    one, other = servers
    sayer = Sayer(other.port)

    async def scenario(link: Link) -> None:
        with redis.Redis.from_url(other.url) as client:
            client.replicaof("127.0.0.1", str(one.port))
            try:
                for _ in range(2):
                    with pytest.raises(LinkLost, match=r"\(master 'fleet'\) is a replica: a failover is under way"):
                        await link.call("PING")
            finally:
                client.replicaof("NO", "ONE")
        assert await port_of(link) == other.port

    on_link(scenario, sayer)


def test_a_user_that_may_not_ask_for_the_role_is_told_which_right_it_lacks(servers: list[EmbeddedRedis]) -> None:
    async def run() -> None:
        async with sayers(Sayer(servers[0].port)) as url:
            link = Link(url.replace("://", "://weak:x@"))
            with pytest.raises(LinkLost, match=r"does not tell its role: its user needs \+info"):
                await link.call("PING")
            await link.close()
            await asyncio.sleep(0.01)

    with redis.Redis.from_url(servers[0].url) as client:
        client.acl_setuser("weak", enabled=True, nopass=True, keys=["*"], commands=["+ping", "+client"])
    asyncio.run(run())


def test_the_sentinels_have_a_login_of_their_own(servers: list[EmbeddedRedis]) -> None:
    some = [Sayer(servers[0].port, password="x"), Sayer(servers[0].port, password="x")]

    async def scenario(link: Link) -> None:
        assert await link.call("PING") == b"PONG"

    on_link(scenario, *some, query="?sentinel_username=me&sentinel_password=s3cret")
    assert [one.logins for one in some] == [[[b"me", b"s3cret"]]] * 2


@pytest.mark.parametrize(
    ("some", "sentence"),
    [
        ([Sayer(), Sayer()], r"^the Sentinels \(127.0.0.1:\d+, 127.0.0.1:\d+\) watch no master named 'fleet': the URL"),
        ([Sayer(hangs=True)], r"^no Sentinel of 'fleet' answers \(127.0.0.1:\d+: (timed out|no answer in time)\)"),
        ([Sayer(1, password="x")], r"^no Sentinel of 'fleet' answers \(127.0.0.1:\d+: NOAUTH Authentication required"),
        ([Sayer(1, flags="master,o_down")], r"^the Sentinels hold 127.0.0.1:1, their master 'fleet', for down"),
        ([Sayer(1)], r"^Redis at 127.0.0.1:1/0 cannot be reached"),
    ],
    ids=["unknown", "silent", "locked", "down", "gone"],
)
def test_what_is_wrong_is_a_sentence(some: list[Sayer], sentence: str) -> None:
    async def scenario(link: Link) -> None:
        for _ in range(2):
            with pytest.raises(LinkLost, match=sentence):
                await link.call("PING")

    on_link(scenario, *some)


def test_sentinels_that_cannot_be_reached_are_a_sentence_without_secrets() -> None:
    url = f"redis+sentinel://:s3cret@127.0.0.1:{free_port()}/fleet?sentinel_password=s3cret"

    async def run() -> None:
        link = Link(url)
        with pytest.raises(LinkLost, match=r"no Sentinel of 'fleet' answers \(127.0.0.1:\d+: .*[Cc]onn") as problem:
            await link.call("PING")
        await link.close()
        assert "s3cret" not in str(problem.value)

    asyncio.run(run())
    with pytest.raises(RedisUnusable, match="another option") as refusal:
        read_url("rediss+sentinel://h/fleet?pw=s3cret")
    assert "s3cret" not in str(refusal.value)


def a_view(*, others: int = 2, quorum: object = b"OK") -> list[object]:
    facts = {"num-other-sentinels": others}
    return [[str(part).encode() for pair in facts.items() for part in pair], quorum]


HERE = [Place(f"h{number}", 26379) for number in (1, 2, 3)]
SEEN = Sighting(Place("r", 1), 1, down=False)


@pytest.mark.parametrize(
    ("answers", "views", "sentences"),
    [
        ([SEEN, SEEN, SEEN], [a_view(), a_view(), a_view()], []),
        ([SEEN, "refused", None], [a_view()], ["h2:26379 does not answer (refused): start it", "h3:26379 watches no"]),
        (
            [SEEN, Sighting(Place("q", 2), 2, down=False)],
            [a_view(others=1)],
            ["name q:2, r:1: a failover is under way"],
        ),
        ([SEEN, SEEN], [a_view(), a_view()], ["the URL names 2 of 3 Sentinels"]),
        ([SEEN], [a_view(others=0, quorum=ReplyError("NOQUORUM 1 usable"))], ["h1:26379 finds no majority"]),
        ([SEEN], [[ReplyError("NOPERM"), ReplyError("NOPERM")]], []),
    ],
    ids=["well", "silent", "apart", "few", "minority", "not allowed"],
)
def test_what_should_be_mended_before_the_next_failover_is_told(
    answers: list[Answer], views: list[list[object]], sentences: list[str]
) -> None:
    address = SentinelAddress(tuple(HERE[: len(answers)]), "fleet")
    told = troubles_in(address, dict(zip(HERE, answers, strict=False)), dict(zip(HERE, views, strict=False)))
    assert len(told) == len(sentences)
    for trouble, sentence in zip(told, sentences, strict=True):
        assert sentence in trouble


def test_with_tls_sentinels_and_redis_are_trusted_by_the_authority_in_the_url(
    servers: list[EmbeddedRedis], tmp_path: Path
) -> None:
    certificates = make_certificates(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificates.server_file)
    message = OfflineMessage(id="m", app="demo", recipients=("u",), body="hi")

    async def run() -> None:
        async with behind_tls(servers[0].port, context) as port, sayers(Sayer(port), tls=context) as plain:
            url = f"{plain.replace('redis+', 'rediss+')}?ssl_ca_certs={certificates.ca_file}"
            link = Link(url)
            assert await port_of(link) == servers[0].port
            await link.close()
            async with AsyncProducer(url, prefix="tls") as producer:
                assert (await producer.enqueue(message)).id == "m"
            with Producer(url, prefix="tls") as sync:
                assert (await asyncio.to_thread(sync.enqueue, message)).id == "m"
            for untrusted in url.partition("?")[0], plain:
                link = Link(untrusted)
                with pytest.raises(LinkLost, match="no Sentinel of 'fleet' answers"):
                    await link.call("PING")
                await link.close()
            await asyncio.sleep(0.05)

    asyncio.run(run())
