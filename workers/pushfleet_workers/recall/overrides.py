"""How the push looks that takes a message back: as the message, without what it said, and quiet where it can be."""

from __future__ import annotations

from msgspec.structs import replace

from pushfleet.message import ApnsOptions, HuaweiOptions, OfflinePush, OppoOptions, VivoOptions
from pushfleet_workers.overrides import without_texts

__all__ = ["overrides_of_recall"]

_NOTHING, _HUAWEI, _VIVO = OfflinePush(), HuaweiOptions(), VivoOptions()


def overrides_of_recall(push: OfflinePush | None) -> OfflinePush:
    """*push* for taking its message back; doing it twice changes nothing more.

    What the message said goes: texts but the title, pictures, ``ext``, what fills texts of the app and templates. Its
    channels and classes stay: another class might not be allowed. APNs and TPNS are quiet for a recall by themselves.
    """
    push = push or _NOTHING
    plain = without_texts(push)
    return replace(
        plain,
        title=push.title,
        ext=None,
        android=None,
        apns=plain.apns and _as_titled(plain.apns, push.apns),
        huawei=replace(plain.huawei or _HUAWEI, importance="LOW"),
        oppo=plain.oppo and _calm(plain.oppo),
        vivo=replace(plain.vivo or _VIVO, notify_type=1),
    )


def _as_titled(plain: ApnsOptions, titled: ApnsOptions | None) -> ApnsOptions:
    assert titled is not None
    return replace(
        plain,
        title=titled.title,
        title_loc_key=titled.title_loc_key,
        title_loc_args=titled.title_loc_args,
        category=None,
    )


def _calm(oppo: OppoOptions) -> OppoOptions:
    return replace(oppo, notify_level=2) if oppo.notify_level == 16 else oppo
