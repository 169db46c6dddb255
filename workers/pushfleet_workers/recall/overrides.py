"""How the push looks that takes a message back: as the message, without what it said, and quiet where it can be."""

from __future__ import annotations

from msgspec.structs import replace

from pushfleet.message import HuaweiOptions, OfflinePush, VivoOptions

__all__ = ["overrides_of_recall"]

_NOTHING, _HUAWEI, _VIVO = OfflinePush(), HuaweiOptions(), VivoOptions()


def overrides_of_recall(push: OfflinePush | None) -> OfflinePush:
    """*push* for taking its message back; doing it twice changes nothing more.

    What the message said goes: texts but the title, pictures, ``ext``, what fills texts of the app and templates. Its
    channels and classes stay: another class might not be allowed. APNs and TPNS are quiet for a recall by themselves.
    """
    push = push or _NOTHING
    return OfflinePush(
        title=push.title,
        apns=push.apns
        and replace(
            push.apns,
            subtitle=None,
            subtitle_loc_key=None,
            subtitle_loc_args=(),
            loc_key=None,
            loc_args=(),
            image=None,
            # An extension of the app would be run to show what it knows better than we do: the message.
            mutable_content=False,
            category=None,
        ),
        huawei=replace(push.huawei or _HUAWEI, image=None, importance="LOW"),
        honor=push.honor and replace(push.honor, image=None),
        xiaomi=push.xiaomi and replace(push.xiaomi, template_id=None, template_params=None),
        oppo=push.oppo
        and replace(
            push.oppo,
            template_id=None,
            title_params=None,
            content_params=None,
            notify_level=2 if push.oppo.notify_level == 16 else push.oppo.notify_level,
        ),
        vivo=replace(push.vivo or _VIVO, notify_type=1),
        meizu=push.meizu,
        harmony=push.harmony and replace(push.harmony, image=None),
        fcm=push.fcm and replace(push.fcm, image=None),
    )
