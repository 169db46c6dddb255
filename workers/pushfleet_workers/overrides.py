"""A message's own wishes for its push, without what they say of the message."""

from __future__ import annotations

from msgspec.structs import replace

from pushfleet.message import OfflinePush

__all__ = ["without_texts"]


def without_texts(push: OfflinePush) -> OfflinePush:
    """*push* without texts, what fills texts of the app and templates, and pictures; doing it twice changes nothing.

    Sounds, channels, classes and ``ext`` stay: another class might not be allowed, and a tap must still lead somewhere.
    An extension of the app would be run to show what it knows better than we do, the message: none is asked for.
    """
    return replace(
        push,
        title=None,
        desc=None,
        apns=push.apns
        and replace(
            push.apns,
            title=None,
            title_loc_key=None,
            title_loc_args=(),
            subtitle=None,
            subtitle_loc_key=None,
            subtitle_loc_args=(),
            loc_key=None,
            loc_args=(),
            image=None,
            mutable_content=False,
        ),
        huawei=push.huawei and replace(push.huawei, image=None),
        honor=push.honor and replace(push.honor, image=None),
        xiaomi=push.xiaomi and replace(push.xiaomi, template_id=None, template_params=None),
        oppo=push.oppo and replace(push.oppo, template_id=None, title_params=None, content_params=None),
        harmony=push.harmony and replace(push.harmony, image=None),
        fcm=push.fcm and replace(push.fcm, image=None),
    )
