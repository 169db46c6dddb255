"""A believable hour of an IM product, made up but the same every time: users with devices, and what they write.

`python examples/im_hour.py FOLDER` writes `devices.jsonl` (for `pushfleet devices import`) and `messages.jsonl` (for
`pushfleet enqueue`).
"""

from __future__ import annotations

import json
import random
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

SEED = 20_261
USERS = 2_000
MESSAGES = 5_000
STORM = 300
"""Messages of one group within a minute."""

READ = 300
"""Of the last messages, how many are read on another device at once."""

DEAD_TOKEN_SHARE = 0.02
MAKERS = {
    "apns": 34, "fcm": 20, "huawei": 10, "harmony": 6, "honor": 7, "xiaomi": 9, "oppo": 7, "vivo": 8, "meizu": 2,
    "tpns": 1,
}  # fmt: skip
"""Devices by whose push service reaches them, in parts of the whole."""

SECOND_CHANNEL_SHARE = 0.3
"""Of the devices of Xiaomi, OPPO and vivo: those sold abroad that have Google's services as well."""

NAMES = [
    "Ann",
    "Bob",
    "Chen",
    "Dora",
    "Emil",
    "Fatima",
    "Goro",
    "Hana",
    "Ivan",
    "Jun",
    "李雷",
    "韩梅梅",
    "王芳",
    "张伟",
    "陈静",
    "刘洋",
    "赵敏",
    "周杰",
]
GROUP_NAMES = ["Team", "Family", "周末爬山", "Book club", "项目群", "同学会", "Neighbours", "五号楼业主"]
ENGLISH = [
    "See you at eight?", "On my way", "Did you read the draft?", "Happy birthday! 🎂", "Can you call me back",
    "The train is late again 🙄", "Lunch?", "Thanks, got it", "Here is the address", "😂😂😂",
]  # fmt: skip
CHINESE = [
    "晚上一起吃饭吗？", "我到了", "收到，谢谢", "明天的会改到十点", "生日快乐🎉", "在吗？", "文件发你邮箱了",
    "哈哈哈哈", "路上堵车，晚点到", "周末去爬山吧 ⛰️",
]  # fmt: skip


@dataclass
class Hour:
    """The made-up product."""

    devices: list[dict[str, Any]] = field(default_factory=list)
    options: list[dict[str, Any]] = field(default_factory=list)
    """Conversations that somebody muted."""

    preferences: list[dict[str, Any]] = field(default_factory=list)
    """Users who are not to be disturbed."""

    reads: list[dict[str, Any]] = field(default_factory=list)
    """Who has read which conversation right after the last message was enqueued."""

    messages: list[dict[str, Any]] = field(default_factory=list)
    dead_tokens: dict[str, list[str]] = field(default_factory=dict)
    """Tokens of each vendor whose app was uninstalled."""


def make_hour() -> Hour:
    """The hour: about 2,000 users with one to three devices, 5,000 messages of 20 groups and many single chats."""
    rng = random.Random(SEED)
    hour = Hour(dead_tokens={vendor: [] for vendor in MAKERS})
    people = [f"user-{number:04d}" for number in range(USERS)]
    for person in people:
        _add_devices(hour, rng, person)
    sizes = [5, 5, 8, 8, 12, 12, 15, 20, 20, 30, 30, 40, 60, 80, 120, 500]
    groups = [(f"group-{n:02d}", rng.choice(GROUP_NAMES), rng.sample(people, size)) for n, size in enumerate(sizes)]
    for identity, _, members in groups:
        for person in rng.sample(members, max(1, len(members) // 10)):
            receive = rng.choice(["none", "mentions"])
            hour.options.append({"app": "demo", "user": person, "conversation": identity, "receive": receive})
    for number in range(MESSAGES):
        hour.messages.append(_message(rng, number, people, groups))
    _let_it_storm(hour, groups[8])
    sleepers = random.Random(SEED).sample(people, USERS // 25)
    hour.preferences += [{"app": "demo", "user": person} for person in sleepers]
    _read_the_last(hour)
    return hour


def _let_it_storm(hour: Hour, storming: tuple[str, str, list[str]]) -> None:
    """In one group everybody writes at once: some messages in the middle of the hour become its."""
    identity, name, members = storming
    first = len(hour.messages) // 2
    for number, message in enumerate(hour.messages[first : first + STORM]):
        author = members[number % len(members)]
        message.pop("kind", None)
        message.update(
            app="demo",
            sender={"id": author, "name": NAMES[number % len(NAMES)]},
            conversation={"id": identity, "kind": "group", "name": name},
            recipients=[person for person in members if person != author],
            elements=[{"type": "text", "text": ENGLISH[number % len(ENGLISH)]}],
        )
        message.pop("online_only", None)


def _read_the_last(hour: Hour) -> None:
    singles = [message for message in hour.messages if message["app"] == "demo" and len(message["recipients"]) == 1]
    hour.reads += [
        {"app": "demo", "user": message["recipients"][0], "conversation": message["conversation"]["id"]}
        for message in singles[-READ:]
        if isinstance(message["recipients"][0], str)
    ]


def _add_devices(hour: Hour, rng: random.Random, person: str) -> None:
    owned = rng.choices([1, 2, 3], weights=[80, 16, 4])[0]
    for vendor in dict.fromkeys(rng.choices(list(MAKERS), weights=list(MAKERS.values()), k=owned)):
        token = _token(rng, vendor)
        credential = "main"
        if vendor == "apns" and rng.random() < 0.2:
            # The same people's second app, whose pushes go through another engine.
            credential = "lite"
        if rng.random() < DEAD_TOKEN_SHARE:
            hour.dead_tokens[vendor].append(token)
        state = rng.choices(["background", "killed", "foreground", "logged_out"], weights=[55, 35, 8, 2])[0]
        channels = [{"vendor": vendor, "credential": credential, "token": token}]
        if vendor in ("xiaomi", "oppo", "vivo") and rng.random() < SECOND_CHANNEL_SHARE:
            channels.append({"vendor": "fcm", "credential": "main", "token": _token(rng, "fcm")})
        hour.devices.append(
            {
                "app": "lite" if credential == "lite" else "demo",
                "user": person,
                "device": f"{person}-{vendor}",
                "channels": channels,
                "locale": rng.choice(["zh-CN", "zh-CN", "en-US", "en-GB"]),
                "state": state,
                "unread": rng.randrange(5),
            }
        )


def _token(rng: random.Random, vendor: str) -> str:
    """A token in the form that the vendor's SDK gives to an app."""
    number = rng.getrandbits(512)
    return {
        "apns": f"{number % 2**256:064x}",
        "oppo": f"OPPO_CN_{number % 2**128:032x}",
        "vivo": f"{number % 10**23:023d}",
        "tpns": f"{number % 2**144:036x}",
    }.get(vendor, f"{vendor}-{number:0128x}")


def _message(
    rng: random.Random, number: int, people: list[str], groups: list[tuple[str, str, list[str]]]
) -> dict[str, Any]:
    sender = rng.choice(people)
    message: dict[str, Any] = {
        "id": f"m-{number:05d}",
        "app": "lite" if rng.random() < 0.1 else "demo",
        "sender": {"id": sender, "name": rng.choice(NAMES)},
        "elements": [_element(rng)],
        "offline_push": {"ext": json.dumps({"message": f"m-{number:05d}"})},
    }
    if rng.random() < 0.9:
        peer = rng.choice(people)
        message["conversation"] = {"id": "-".join(sorted((sender, peer)))}
        message["recipients"] = [peer]
        if rng.random() < 0.01:
            message.update(kind="call", elements=[])
        elif rng.random() < 0.02:
            message["online_only"] = True
        return message
    identity, name, members = groups[min(int(rng.expovariate(0.25)), len(groups) - 1)]
    message["conversation"] = {"id": identity, "kind": "group", "name": name}
    message["recipients"] = [
        {"id": person, "mention": True} if rng.random() < 0.02 else person for person in members if person != sender
    ]
    return message


def _element(rng: random.Random) -> dict[str, str]:
    kind = rng.choices(["text", "image", "sound", "face", "file"], weights=[75, 10, 6, 6, 3])[0]
    if kind == "text":
        return {"type": "text", "text": rng.choice(rng.choice([ENGLISH, CHINESE]))}
    return {"type": kind}


def lines(rows: list[dict[str, Any]]) -> Iterator[str]:
    """Each row as one line of JSON."""
    for row in rows:
        yield json.dumps(row, ensure_ascii=False) + "\n"


def main(folder: Path) -> None:
    """Write the hour's files into *folder*."""
    hour = make_hour()
    folder.mkdir(parents=True, exist_ok=True)
    for name, rows in (("devices", hour.devices), ("messages", hour.messages)):
        with (folder / f"{name}.jsonl").open("w", encoding="utf-8") as file:
            file.writelines(lines(rows))


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "."))
