"""The sound of a push on Android, where its vendor takes one; since Android 8 many leave it to the channel."""

from __future__ import annotations

from pushfleet_workers.push import Push

__all__ = ["android_sound"]


def android_sound(push: Push) -> str | None:
    """The raw resource to play, without suffix: what the message asks for, else what the user chose.

    Empty: silence; None: nobody said anything, and the account's own settings count.
    """
    android = push.options.android if push.options is not None else None
    if android is not None and android.sound:
        return android.sound
    return None if push.sound is None else push.sound.partition(".")[0]
