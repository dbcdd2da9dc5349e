"""The composer: what a reply is made of before it is one.

What the scripts of the page do, each button of the form does without them: it comes back with what
was asked, unsent.
"""

import unicodedata
import uuid
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from typing import Any

from django import forms
from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.utils import formats, timezone
from django.utils.translation import gettext_lazy as _

from django_ninebits import placeholders, plain
from django_ninebits.canned import Offer, Offers
from django_ninebits.conf import conf
from django_ninebits.segments import GSM, GSM_EXTENSION, PLACES, Segments, segments

#: Said of any mistake in the settings that keeps a reply from being sent.
WRONG_SETTINGS = _("Not sent, because the settings of this site are wrong: %s")

#: The latest that a reply can be scheduled for.
FARTHEST = timedelta(days=365)

#: Of the characters that force Unicode, so many are named.
NAMED = 8

_ENCODINGS = {"GSM-7": _("GSM-7"), "UCS-2": _("Unicode")}


@dataclass(frozen=True)
class Counted:
    """What a text would be sent as, in the words of the page."""

    text: str

    @property
    def found(self) -> Segments:
        return segments(self.text)

    @property
    def characters(self) -> int:
        return len(self.text)

    @property
    def segments(self) -> int:
        return len(self.found.parts)

    @property
    def left(self) -> int:
        return self.found.left

    @property
    def encoding(self) -> Any:
        return _ENCODINGS[self.found.encoding]

    @property
    def forcing(self) -> list[str]:
        """The characters that force Unicode, in the way that a page can show them."""
        return named(self.found.forcing)

    @property
    def plain_version(self) -> "Counted | None":
        """The same without them, if each has a plain counterpart."""
        plainer = Counted(plain.plain(self.text))
        return plainer if self.forcing and not plainer.forcing else None

    @property
    def lasting(self) -> list[str]:
        """Those that have none."""
        return named(segments(plain.plain(self.text)).forcing)

    @property
    def is_too_long(self) -> bool:
        most = limit()
        return most is not None and self.segments > most


@dataclass(frozen=True)
class Said:
    """What is said of what was sent, or was not."""

    became: Any
    repeated: Any
    conflict: Any
    incomplete: Any


class ReplyForm(forms.Form):
    """A reply and its idempotency key, which the page's address has too.

    A browser that goes Back asks for the page again and fills in the text that was written there.
    Because the address is the same the key is too, and so the same reply is not sent twice.
    """

    said = Said(
        became=_("Your reply: %s."),
        repeated=_("This reply was taken before and is not sent a second time. Its status: %s."),
        conflict=_(
            "Already sent: a reply was sent from this page before, with another text; see above."
            " Nothing was sent now. Press Send to send the text below as a further message."
        ),
        incomplete=_(
            "Not sent: the form was incomplete, so that nobody can tell whether this text was sent"
            " before. Look above, and press Send if it was not."
        ),
    )
    scripts = tuple(
        f"django_ninebits/{name}.js" for name in ("segments", "composer", "canned", "drafts")
    )

    text = forms.CharField(
        label=_("Your reply"),
        strip=False,
        error_messages={"required": _("Write a text first.")},
        widget=forms.Textarea(attrs={"rows": 3, "dir": "auto", "class": "nb-textarea"}),
    )
    send_at = forms.DateTimeField(
        label=_("Not before"),
        required=False,
        widget=forms.DateTimeInput(attrs={"type": "datetime-local"}, format="%Y-%m-%dT%H:%M"),
    )
    ref_id = forms.UUIDField(widget=forms.HiddenInput)
    #: The newest message on the page when the reply was begun.
    seen = forms.CharField(required=False, widget=forms.HiddenInput)

    def __init__(self, *args: Any, offers: Offers | None = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.offers = offers

    @property
    def canned(self) -> list[Offer]:
        return [] if self.offers is None else self.offers.all

    @property
    def is_sent(self) -> bool:
        """Whether Send was pressed, and no button that only asks something."""
        return not {"count", "insert", "plain"} & set(self.data)

    def answered(self) -> "ReplyForm":
        """The form with what the button asks for, unsent."""
        text = as_sent(self.data.get("text", ""))
        given = {name: self.data.get(name, "") for name in self.fields} | {
            "text": plain.plain(text) if "plain" in self.data else self._with_canned(text),
            "ref_id": self.key() or uuid.uuid4(),
            "seen": self.seen_up_to,
        }
        return type(self)(initial=given, offers=self.offers)

    def _with_canned(self, text: str) -> str:
        """The text with the canned reply behind it that is to be inserted, if one is."""
        if "insert" not in self.data or self.offers is None:
            return text
        gap = " " if text and not text[-1].isspace() else ""
        return text + gap + self.offers.text_of(self.data.get("canned", ""))

    def key(self) -> uuid.UUID | None:
        """The idempotency key, where what came is one."""
        return key_of(self.data.get("ref_id"))

    def clean_text(self) -> str:
        text = as_sent(self.cleaned_data["text"])
        if not text.strip():
            raise forms.ValidationError(_("Write a text first."))
        if left := placeholders.gaps(text):
            said = _("Not sent: write what belongs in the place of %s.")
            raise forms.ValidationError(said % " ".join(left))
        try:
            _require_few_segments(text, conf.max_segments)
        except ImproperlyConfigured as error:
            raise forms.ValidationError(WRONG_SETTINGS % error) from error
        return text

    def clean_send_at(self) -> datetime | None:
        send_at: datetime | None = self.cleaned_data["send_at"]
        now = timezone.now()
        if send_at is not None and send_at <= now:
            here = timezone.localtime(now) if settings.USE_TZ else now
            shown = formats.date_format(here, "DATETIME_FORMAT")
            raise forms.ValidationError(_("Not sent: that time is past. It is %s now.") % shown)
        if send_at is not None and send_at > now + FARTHEST:
            raise forms.ValidationError(_("Not sent: that is more than a year ahead."))
        return send_at

    @property
    def seen_up_to(self) -> int:
        """Nothing, where what came is no id."""
        written = self.data.get("seen", "")
        return int(written) if written.isdecimal() and len(written) < 19 else 0

    def with_ref_id(self, ref_id: uuid.UUID, problem: Any) -> "ReplyForm":
        """The same in a form that sends it as another message, and why."""
        return self._but(problem, ref_id=str(ref_id))

    def having_seen(self, newest: int, problem: Any) -> "ReplyForm":
        """The same in a form of which the messages up to ``newest`` have been seen, and why."""
        return self._but(problem, seen=str(newest))

    def _but(self, problem: Any, **changes: str) -> "ReplyForm":
        kept = {name: self.data.get(name, "") for name in self.fields}
        form = type(self)(kept | changes, offers=self.offers)
        form.add_error(None, problem)
        return form

    @property
    def counted(self) -> Counted:
        return Counted(as_sent(self["text"].value() or ""))

    @property
    def limit(self) -> int | None:
        return limit()

    @property
    def is_later(self) -> bool:
        """Whether it is to be sent later, or is meant to."""
        return bool(self["send_at"].value())

    @property
    def is_returned(self) -> bool:
        """Whether it was posted before and holds what was written."""
        return self.is_bound or "text" in self.initial

    @property
    def time_zone(self) -> str:
        """The one that times are written and read in."""
        if settings.USE_TZ:
            return timezone.get_current_timezone_name()
        return timezone.get_default_timezone_name()

    @property
    def for_scripts(self) -> dict[str, Any]:
        """What the scripts of the page know only from the server."""
        return {
            "tables": {
                "gsm": "".join(sorted(GSM)),
                "extension": "".join(sorted(GSM_EXTENSION)),
                "places": PLACES,
                "plain": plain.PLAIN,
                "marks": plain.MARKS,
            },
            "canned": [asdict(offer) for offer in self.canned],
            "placeholders": placeholders.NAMES,
            "limit": limit(),
            "named": NAMED,
            "encodings": _ENCODINGS,
            "words": {
                "send": _("Send"),
                "sendLater": _("Send later"),
                "counted": _("Segments: {segments}. Encoding: {encoding}."),
                "tooLong": _("Too long: it takes {segments} segments, at most {limit} are sent."),
            },
        }


def key_of(written: str | None) -> uuid.UUID | None:
    """An idempotency key, where it is one."""
    try:
        return uuid.UUID(written or "")
    except ValueError:
        return None


def as_sent(text: str) -> str:
    """A browser posts line ends as CRLF; as text they are one character."""
    return text.replace("\r\n", "\n")


def limit() -> int | None:
    """The most segments; ``None`` also where the setting is wrong, which is said when it counts."""
    try:
        return conf.max_segments
    except ImproperlyConfigured:
        return None


def named(characters: str) -> list[str]:
    """Some characters, each in a way that can be seen."""
    more = ["…"] if len(characters) > NAMED else []
    return [*map(_visible, characters[:NAMED]), *more]


def _visible(char: str) -> str:
    category = unicodedata.category(char)[0]
    if category in "ZC":
        return f"U+{ord(char):04X}"
    return f"◌{char}" if category == "M" else char


def _require_few_segments(text: str, most: int | None) -> None:
    counted = Counted(text)
    if most is not None and counted.segments > most:
        too_long = _("Not sent: the text takes %(count)s segments, and at most %(limit)s are sent.")
        said = too_long % {"count": counted.segments, "limit": most}
        raise forms.ValidationError([said, _what_makes_shorter(counted)])


def _what_makes_shorter(counted: Counted) -> Any:
    if counted.plain_version is not None:
        said = _("It is Unicode because of %(characters)s. The plain version takes %(count)s.")
        count = counted.plain_version.segments
        return said % {"characters": " ".join(counted.forcing), "count": count}
    if counted.forcing:
        said = _("It is Unicode because of %(characters)s: without, more fits into a segment.")
        return said % {"characters": " ".join(counted.forcing)}
    return _("Shorten it, or send it as several replies.")
