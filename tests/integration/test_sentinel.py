"""A whole fleet behind Sentinels: masters die under load, and everybody goes on with the one that is elected."""

import asyncio
import json
import re
import threading
import time
import urllib.request
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from tests.integration.stage import PREFIX, Stage, eventually, running_stage
from tests.sentinels import MASTER, SentinelCluster

from pushfleet import AsyncProducer, Conversation, EnqueueError, OfflineMessage, Producer, QueueUnavailable
from pushfleet_workers.app import make_app
from pushfleet_workers.checks import check_all
from pushfleet_workers.redis_link import Link, LinkLost
from pushfleet_workers.redis_server import free_port
from pushfleet_workers.settings import CONFIG_VARIABLE, Settings, load
from pushfleet_workers.supervisor import Child
from pushfleet_workers.tasks import publish_drain
from pushfleet_workers.up import pushfleet_command

USERS = 50
GOES_ON_S = 15.0
"""Two cores carry all of it; alone it takes two or three seconds from the death of the master."""

direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SentinelCluster]:
    """One that asks for passwords everywhere. Each test leaves it with all of its servers."""
    folder = tmp_path_factory.mktemp("cluster")
    with SentinelCluster(folder, password="p/w@1", sentinel_password="p w2") as one:
        yield one


@pytest.fixture(scope="module")
def stage(cluster: SentinelCluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """Router, worker and api."""
    settings = f"[router]\ntakeover_s = 1.0\n[api]\nport = {free_port()}"
    folder = tmp_path_factory.mktemp("fleet")
    with running_stage(folder, cluster.url, account="in_flight_max = 20", settings=settings) as one:
        one.register(USERS)
        one.cloud.rule("apns", "answer", delay_s=0.02)
        for words in (["api"], ["router"], ["worker", "--vendor", "apns"]):
            port = free_port()
            env = {CONFIG_VARIABLE: str(one.config), "PUSHFLEET_METRICS__PORT": str(port)}
            ready_url = f"http://127.0.0.1:{port}/readyz" if words != ["api"] else ""
            one.supervisor.start(Child(words[0], pushfleet_command(*words), env, ready_url))
        one.supervisor.wait_ready()
        eventually(lambda: answers(one), what="the api answers")
        yield one


def register(stage: Stage, user: str) -> None:
    """By the api."""
    url = f"http://127.0.0.1:{load(stage.config).api.port}/v1/apps/demo/users/{user}/devices/tablet"
    body = json.dumps({"channels": [{"vendor": "apns", "token": f"{USERS:064x}"}]}).encode()
    request = urllib.request.Request(url, body, {"content-type": "application/json"}, method="PUT")
    direct.open(request, timeout=5).close()


def answers(stage: Stage) -> bool:
    """Whether the api registers a device."""
    try:
        register(stage, "somebody")
    except OSError:
        return False
    return True


def a_message(name: str) -> OfflineMessage:
    user = f"user-{sum(name.encode()) % USERS}"
    return OfflineMessage(id=name, app="demo", conversation=Conversation(id=name), recipients=(user,), body="hi")


class Load:
    """Two producers, each with a book of what was accepted; what was refused is tried until it is."""

    def __init__(self, url: str, name: str, **settings: Any) -> None:
        self._url = url
        self._name = name
        self._settings = {"prefix": PREFIX, "socket_timeout_s": 2.0, **settings}
        self._stopping = threading.Event()
        self.books: dict[str, list[str]] = {"sync": [], "async": []}
        self.refusals: list[str] = []

    @property
    def accepted(self) -> set[str]:
        return {name for book in self.books.values() for name in book}

    def _next(self, kind: str) -> OfflineMessage:
        return a_message(f"{self._name}-{kind}-{len(self.books[kind])}")

    def _sync(self) -> None:
        with Producer(self._url, **self._settings) as producer:
            while not self._stopping.is_set():
                try:
                    self.books["sync"].append(producer.enqueue(self._next("sync")).id)
                except EnqueueError as problem:
                    self.refusals.append(str(problem))
                time.sleep(0.01)

    async def _async(self) -> None:
        async with AsyncProducer(self._url, **self._settings) as producer:
            while not self._stopping.is_set():
                try:
                    self.books["async"].append((await producer.enqueue(self._next("async"))).id)
                except EnqueueError as problem:
                    self.refusals.append(str(problem))
                await asyncio.sleep(0.01)

    @contextmanager
    def running(self) -> Iterator[None]:
        threads = [threading.Thread(target=self._sync), threading.Thread(target=asyncio.run, args=(self._async(),))]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            self._stopping.set()
            for thread in threads:
                thread.join()

    def wait_for_more(self, count: int) -> None:
        """Both get so many more in."""
        before = {kind: len(book) for kind, book in self.books.items()}
        eventually(
            lambda: all(len(book) >= before[kind] + count for kind, book in self.books.items()),
            timeout_s=GOES_ON_S,
            what="producers go on",
        )


def assert_the_books_agree(stage: Stage, promised: set[str]) -> None:
    eventually(lambda: promised <= set(stage.received()), timeout_s=GOES_ON_S, what="all that is promised is sent")
    books = stage.wait_until_idle(GOES_ON_S)
    assert books.balanced
    received = stage.received()
    doubles = sum(received.values()) - len(received)
    assert doubles <= books.accounts["apns:main"].unknown


def assert_celery_listens(stage: Stage, cluster: SentinelCluster) -> None:
    """Its consumer has found the new master as well."""
    app = make_app(load(stage.config))
    publish_drain(app, "apns")
    app.close()
    with cluster.client() as client:
        queue = f"{PREFIX}:celery:push.apns"
        eventually(lambda: not client.exists(queue), timeout_s=GOES_ON_S, what="Celery takes triggers")


def test_with_a_replica_waited_for_nothing_that_was_accepted_is_lost(cluster: SentinelCluster, stage: Stage) -> None:
    load = Load(cluster.url, "safe", wait_replicas=1, wait_timeout_ms=300)
    with load.running():
        load.wait_for_more(30)
        old = cluster.master
        cluster.kill(old)
        cluster.wait_switched(old)
        eventually(
            lambda: any("0 of 1 replicas" in one for one in load.refusals), what="no replica is left to wait for"
        )
        eventually(lambda: answers(stage), timeout_s=GOES_ON_S, what="the api goes on")
        cluster.rejoin(old)
        load.wait_for_more(30)
    assert_the_books_agree(stage, load.accepted)
    assert_celery_listens(stage, cluster)


def test_without_it_what_was_not_replicated_is_lost_and_nothing_is_stuck(
    cluster: SentinelCluster, stage: Stage
) -> None:
    load = Load(cluster.url, "bare")
    with load.running():
        load.wait_for_more(20)
        old, (replica,) = cluster.master, cluster.replicas
        cluster.wait_in_sync(replica)
        safe = load.accepted
        cluster.detach(replica)
        load.wait_for_more(5)
        assert cluster.lag_bytes(replica), "it is behind when the master dies"
        cluster.kill(old)
        cluster.wait_switched(old)
        cluster.rejoin(old)
        before = load.accepted
        load.wait_for_more(20)
    assert_the_books_agree(stage, safe | load.accepted - before)


def test_a_master_that_hangs_is_left_and_nobody_goes_back_to_it(cluster: SentinelCluster) -> None:
    async def in_time(enqueue: Callable[[], Awaitable[object]]) -> None:
        try:
            await enqueue()
        except QueueUnavailable:
            # What it tried first may have hung.
            await enqueue()

    async def scenario(link: Link, producer: AsyncProducer, sync: Producer) -> None:
        old = cluster.master
        await link.call("SET", "where", "old")
        history, waiting = link.history, asyncio.ensure_future(link.call("BLPOP", "nothing", 0))
        await producer.enqueue(a_message("a"))
        sync.enqueue(a_message("b"))
        with cluster.frozen(old):
            new = await asyncio.to_thread(cluster.wait_switched, old)
            with pytest.raises(LinkLost):
                await asyncio.wait_for(waiting, GOES_ON_S)
            await link.call("SET", "where", "new")
            assert link.history != history
            await in_time(lambda: producer.enqueue(a_message("c")))
            await in_time(lambda: asyncio.to_thread(sync.enqueue, a_message("d")))
        history = link.history
        await producer.enqueue(a_message("e"))
        sync.enqueue(a_message("f"))
        await link.call("SET", "where", "still new")
        assert link.history == history
        with cluster.client(new) as client:
            assert client.get("where") == b"still new"
            assert client.xlen("hang:{ingress:normal}") == 6

    async def run() -> None:
        link = Link(cluster.url)
        with Producer(cluster.url, prefix="hang", socket_timeout_s=1) as sync:
            async with AsyncProducer(cluster.url, prefix="hang", socket_timeout_s=1) as producer:
                await scenario(link, producer, sync)
        await link.close()

    asyncio.run(run())


def wait_for_followers(cluster: SentinelCluster, count: int) -> None:
    """What was the master before is made a replica by the Sentinels, when they get to it."""
    with cluster.client() as client:
        eventually(lambda: client.info("replication")["connected_slaves"] == count, what=f"{count} follow the master")


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda url: url, None),
        (lambda url: url.replace(f"/{MASTER}/", "/other/"), "watch no master named 'other'"),
        (lambda url: url.partition("?")[0], "Authentication required"),
        (lambda url: url.replace("p%2Fw%401", "wrong"), "refuses us: WRONGPASS"),
        (lambda url: re.sub(r"127.0.0.1:\d+", "127.0.0.1:1", url), f"no Sentinel of '{MASTER}' answers"),
    ],
    ids=["well", "other name", "no password", "wrong password", "nobody there"],
)
def test_check_says_what_is_wrong(cluster: SentinelCluster, change: Callable[[str], str], sentence: str | None) -> None:
    wait_for_followers(cluster, 1)
    _, finding = check_all(Settings(redis={"url": change(cluster.url)}))
    if sentence is None:
        assert finding.level == "ok"
        assert f"127.0.0.1:{cluster.master.port}/0 (master '{MASTER}')" in finding.sentence
    else:
        assert finding.level == "error"
        assert sentence in finding.sentence
    for secret in ("p/w@1", "p%2Fw%401", "p w2", "p%20w2", "wrong"):
        assert secret not in finding.sentence.replace("WRONGPASS", "")


def test_check_sees_a_master_that_nobody_follows(cluster: SentinelCluster) -> None:
    """The Sentinels go on counting the replica that is gone."""
    wait_for_followers(cluster, 1)
    (replica,) = cluster.replicas
    cluster.kill(replica)
    try:
        wait_for_followers(cluster, 0)
        warnings = [one.sentence for one in check_all(Settings(redis={"url": cluster.url})) if "redis" in one.about]
        assert len(warnings) == 2, warnings
        assert f"{cluster.master.port}/0 (master '{MASTER}') has no replica that follows it" in warnings[1]
    finally:
        cluster.rejoin(replica)
        cluster.wait_in_sync(replica)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [((f"/{MASTER}/", "/other/"), "watch no master named 'other'"), (("p%2Fw%401", "x"), "invalid username-password")],
    ids=["other name", "wrong password"],
)
def test_a_producer_says_what_is_wrong(cluster: SentinelCluster, change: tuple[str, str], sentence: str) -> None:
    with Producer(cluster.url.replace(*change)) as producer, pytest.raises(QueueUnavailable, match=sentence):
        producer.enqueue(a_message("a"))
