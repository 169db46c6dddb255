"""The decision on a message for each of its recipients' devices: by which channel, when, in what words, or why not."""

from __future__ import annotations

from collections.abc import Callable

from pushfleet.message import OfflineMessage, Recipient
from pushfleet_workers import registry
from pushfleet_workers.clock import FleetClock
from pushfleet_workers.decision import reach, refuse_hour, refuse_message, refuse_read, refuse_recall, refuse_receiver
from pushfleet_workers.job import Job
from pushfleet_workers.manner import sound_of
from pushfleet_workers.peace import CapDesk, first_look_ms, hold_s
from pushfleet_workers.push import Delivery, delivery_id
from pushfleet_workers.settings import Settings
from pushfleet_workers.tokens.lookup import UserState
from pushfleet_workers.tokens.preferences import Preferences
from pushfleet_workers.tokens.reads import Done
from pushfleet_workers.tokens.record import Channel, Device
from pushfleet_workers.wording import Wording

__all__ = ["BadgeWanted", "Planner"]

BadgeWanted = tuple[Delivery, Job, int]
"""A delivery, the job of its message, and the device's unread number when it went to the background."""


class Planner:
    """Writes into jobs what is to be put for them; asks nobody.

    * **caps** - knows which deliveries are subject to a cap of their device.
    * **takes** - whether an account (vendor, credential) takes pushes of an app.
    """

    def __init__(
        self,
        settings: Settings,
        clock: FleetClock,
        wording: Wording,
        caps: CapDesk,
        takes: Callable[[str, str, str], bool],
    ) -> None:
        self._apps = settings.apps
        self._clock = clock
        self._wording = wording
        self._caps = caps
        self._takes = takes
        self._holding = frozenset(name for name, app in settings.apps.items() if app.holds)

    def refusal(self, job: Job, now_ms: int) -> str:
        """Why nobody gets a push of *job*; empty where nothing speaks against it as a whole."""
        if job.recall is not None:
            return refuse_recall(job.message.kind, job.window_s, job.people, job.expires_at_ms, now_ms)
        return refuse_message(job.message, job.sent_at_ms, now_ms, has_text=self._has_text(job))

    def _has_text(self, job: Job) -> bool:
        return bool(self._wording.of(job, self._wording.language(job.message.app))[1])

    def plan(self, job: Job, recipient: Recipient, state: UserState, badges: list[BadgeWanted], done: Done) -> None:
        """Plan deliveries to the devices of *recipient*, or say why there are none.

        * **badges** - given what counts in a badge.
        * **done** - what the recipient has read, or which call has ended.
        """
        message = job.message
        if not state.devices:
            job.suppress("no_device")
            return
        now_ms = self._clock.now_ms()
        push = message.offline_push
        push_type = push.apns.push_type if push is not None and push.apns is not None else None
        refusal = ""
        preferences = state.preferences
        if job.recall is None:
            refusal = refuse_receiver(message.kind, recipient, state.receive_at(now_ms), preferences)
            refusal = refusal or refuse_read(message.kind, recipient, done=done.covers(job.sent_at_ms, job.raw.time_ms))
        else:
            # What was shown came over the channel for alerts, and whoever muted the conversation since has it still.
            push_type, preferences = "alert", None
        forced = recipient.push == "force"
        if job.recall is None and message.app in self._holding and not forced:
            self._hold(job, recipient, state, now_ms)
        for device_id, device in state.devices.items():
            reached: Channel | str = refusal or refuse_hour(
                message.kind, recipient, preferences, device.time_zone, now_ms
            )
            reached = reached or self._reach(job, device, now_ms, push_type, forced=forced)
            parks = reached == "foreground" and job.recall is None and self._apps[message.app].parks
            if parks and isinstance(beyond := self._reach(job, device, now_ms, push_type, forced=True), Channel):
                reached = beyond
            if isinstance(reached, str):
                job.suppress(reached)
            else:
                self._plan_device(job, recipient, device_id, device, reached, state.preferences, badges, parks=parks)

    def _reach(self, job: Job, device: Device, now_ms: int, push_type: str | None, *, forced: bool) -> Channel | str:
        """The channel by which the job's message reaches the device, or why none does."""
        message = job.message
        unused_ms = self._apps[message.app].device_unused_ms
        return reach(
            device,
            message.app,
            message.kind,
            now_ms,
            self._takes,
            push_type=push_type,
            forced=forced,
            unused_ms=unused_ms,
        )

    def _hold(self, job: Job, recipient: Recipient, state: UserState, now_ms: int) -> None:
        """Let the recipient's pushes wait where the app says so; not past the message's end."""
        message = job.message
        app, lane = self._apps[message.app], message.effective_lane
        wait_s = hold_s(app, message.kind, lane, state.devices.values(), now_ms)
        due_ms = job.raw.time_ms + int(wait_s * 1000)
        # A clock that is behind may see an entry before its time: what does not wait is due at once all the same.
        if wait_s and now_ms < due_ms < job.expires_at_ms:
            job.holds[recipient.id] = due_ms

    def plan_targets(self, job: Job) -> None:
        """Devices addressed directly, past state and badge."""
        message = job.message
        for target in dict.fromkeys(message.targets):
            if not self._takes(target.vendor, target.credential, message.app):
                job.suppress("unknown_account")
                continue
            manner = (self._apps[message.app].locale, False, False, None)
            group = (target.vendor, target.credential, manner)
            identity = delivery_id(message.app, message.id, "", f"{target.vendor}:{target.credential}:{target.token}")
            delivery = Delivery(identity, "", "", target.token, job.raw.time_ms)
            job.planned.setdefault(group, []).append(delivery)

    def _plan_device(
        self,
        job: Job,
        recipient: Recipient,
        device_id: str,
        device: Device,
        channel: Channel,
        preferences: Preferences | None,
        badges: list[BadgeWanted],
        *,
        parks: bool,
    ) -> None:
        message = job.message
        language = self._wording.language(message.app, device.locale)
        hidden = preferences is not None and preferences.hide_text
        sound = sound_of(job, preferences) if preferences is not None else None
        group = (channel.vendor, channel.credential, (language, recipient.mention, hidden, sound))
        delivery = Delivery(
            delivery_id(message.app, message.id, recipient.id, device_id),
            recipient.id,
            device_id,
            channel.token,
            channel.registered_at_ms,
            token_kind=channel.kind,
            mention=recipient.mention,
            forced=recipient.push == "force",
        )
        if parks:
            app, lane = self._apps[message.app], message.effective_lane
            job.parked[delivery.id] = first_look_ms(lane, app.park_urgent_s, job.raw.time_ms, job.expires_at_ms)
        if job.recall is not None or job.recalled:
            pass
        elif recipient.unread is not None:
            delivery.badge = recipient.unread
        elif _counts_in_badge(message):
            if not registry.load(channel.vendor).exact_badge:
                delivery.badge = 0  # the vendor adds one by itself
            elif parks:
                delivery.counted = True  # when it leaves
            else:
                badges.append((delivery, job, device.unread))
        job.planned.setdefault(group, []).append(delivery)
        if self._caps and self._caps.limits(job, channel, device):
            job.capped.add(delivery.id)


def _counts_in_badge(message: OfflineMessage) -> bool:
    push = message.offline_push
    return push is None or push.apns is None or push.apns.badge_mode == "count"
