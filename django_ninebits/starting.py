"""A new conversation: whom to, from which short code, and its first text.

Nothing is stored before that text is: neither a conversation nor a contact. Where there is a
conversation already, or somebody was quicker, the way leads to its thread, and nothing is sent that
nobody looked at first.
"""

import uuid
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from django import forms
from django.contrib import messages
from django.core.exceptions import ImproperlyConfigured, PermissionDenied
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.utils.translation import gettext_lazy as _
from django.utils.translation import gettext_noop

from django_ninebits import services, wording
from django_ninebits.canned import Offers
from django_ninebits.composer import ReplyForm, Said, as_sent, key_of
from django_ninebits.conf import conf
from django_ninebits.decisions import outside_transactions
from django_ninebits.exceptions import InvalidPhoneNumber
from django_ninebits.models import Contact, Conversation, Message, atomic, database
from django_ninebits.phone import subscriber_number
from django_ninebits.sending import Outcome, pressed, tell_what_became_of
from django_ninebits.thread import Page, ThreadAdmin, opted_out

#: What the address says beside the key of the form: whom to, from what, and that it is to change.
TO, FROM, CHANGE = "to", "from", "change"

#: What the admin calls the query of the list that one comes from.
_FILTERS = "_changelist_filters"

_NO_SHORT_CODE = _(
    "There is no short code to start a conversation from. Whoever runs this site sets SHORT_CODE,"
    " or SHORT_CODES, in NINEBITS."
)
_WRONG_SETTINGS = _(
    "No conversation can be started, because the settings of this site are wrong: %s"
)
_HIDDEN = _(
    "There is a conversation with this number already, and you may not see it. Ask a colleague who"
    " may."
)
_THERE_IS_ONE = _("You have talked before: this is the conversation. Nothing was sent.")
_BEGUN = _(
    "Not sent: a conversation with this number has begun meanwhile. Look first, and press Send if"
    " your message is still needed."
)


class StartForm(forms.Form):
    """Whom to, and from which short code. It changes nothing, so it is read from the address."""

    to = forms.CharField(
        label=_("Number"),
        help_text=_("In any way of writing it, such as 0802 000 0000 or +234 802 000 0000."),
        error_messages={"required": _("Write a number first.")},
        widget=forms.TextInput(
            {"inputmode": "tel", "dir": "ltr", "autocomplete": "off", "autofocus": True}
        ),
    )

    def __init__(self, *args: Any, codes: list[str], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.codes = codes
        # Named as in the address, where that is no keyword.
        self.fields[FROM] = forms.ChoiceField(
            label=_("Short code"),
            choices=[(code, code) for code in codes],
            required=self.has_choice,
            error_messages={
                "invalid_choice": _(
                    "No conversation can be started from %(value)s: choose another short code."
                )
            },
        )

    @property
    def has_choice(self) -> bool:
        return len(self.codes) > 1

    def clean_to(self) -> str:
        try:
            return subscriber_number(self.cleaned_data[TO])
        except InvalidPhoneNumber as error:
            raise forms.ValidationError(wording.shown(str(error))) from error

    def clean_from(self) -> str:
        return self.cleaned_data[FROM] or self.codes[0]


class FirstForm(ReplyForm):
    """The text that a conversation begins with."""

    said = Said(
        became=_("Your message: %s."),
        repeated=_("This message was taken before and is not sent a second time. Its status: %s."),
        conflict=_(
            "Not sent: another message was sent from this page before. Press Send to send the text"
            " below as a further message."
        ),
        incomplete=_(
            "Not sent: the form was incomplete, so that nobody can tell whether this text was sent"
            " before. Press Send if it was not."
        ),
    )

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["text"].label = _("Your message")
        self.fields["text"].widget.attrs["autofocus"] = True


class NamingForm(FirstForm):
    """The same, for somebody whose name is not known."""

    contact_name = forms.CharField(
        label=_("Their name, if you know it"),
        required=False,
        max_length=Contact._meta.get_field("name").max_length,
        widget=forms.TextInput({"dir": "auto", "autocomplete": "off"}),
    )


class Begun(Exception):
    """There is a conversation by now."""


@dataclass(frozen=True)
class Between:
    """A subscriber and a short code that may have no conversation."""

    number: str
    code: str

    def imagined(self) -> Conversation:
        """As it would be, with its contact as that is stored, or would be."""
        stored = Contact.objects.using(database()).filter(phone_number=self.number).first()
        contact = Contact(phone_number=self.number) if stored is None else stored
        return Conversation(contact=contact, short_code=self.code)

    def found(self) -> Conversation | None:
        return Conversation.objects.using(database()).found_between(self.number, self.code)

    def opened(self) -> tuple[Conversation, bool]:
        """The conversation, and whether it is new: of many at the same instant, it is to one."""
        conversations = Conversation.objects.using(database())
        # There is none to hold yet, but a write comes first: then SQLite lets others wait for it.
        conversations.filter(pk=0).hold()
        if (found := self.found()) is not None:
            return found, False
        contacts = Contact.objects.using(database())
        contact, _created = contacts.get_or_create(phone_number=self.number)
        return conversations.get_or_create(contact=contact, short_code=self.code)


def begin(
    between: Between, form: FirstForm, author: Any, record: Callable[[Conversation, str], object]
) -> Message:
    """The first message, queued, and ``record`` it in the same transaction; or ``Begun``."""
    ref_id = str(form.cleaned_data["ref_id"])
    with atomic():
        conversation, is_new = between.opened()
        # One of the same key is this very message, sent before.
        sent = conversation.messages.using(database()).filter(
            direction=Message.Direction.OUTBOUND, ref_id=ref_id
        )
        if not is_new and not sent.exists():
            raise Begun
        message = services.send_sms(
            between.number,
            form.cleaned_data["text"],
            sender=between.code,
            ref_id=ref_id,
            author=author,
            send_at=form.cleaned_data["send_at"],
        )
        if is_new:
            record(conversation, form.cleaned_data.get("contact_name", ""))
    return message


class StartingAdmin(ThreadAdmin):
    """For the admin of conversations: a new one."""

    def get_short_codes(self, request: HttpRequest) -> list[str]:
        """Those that this user may start a conversation from, the one to be offered first."""
        return conf.short_codes

    def has_add_permission(self, request: HttpRequest) -> bool:
        return self.has_view_permission(request) and self.has_reply_permission(request)

    @outside_transactions
    def add_view(
        self, request: HttpRequest, form_url: str = "", extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        if not self.has_add_permission(request):
            raise PermissionDenied
        try:
            codes = self.get_short_codes(request)
        except ImproperlyConfigured as error:
            return self._ask(request, None, _WRONG_SETTINGS % error)
        if not codes:
            return self._ask(request, None, _NO_SHORT_CODE)
        asked = _asked(request, codes)
        if not asked.is_valid():
            return self._ask(request, asked)
        between = Between(asked.cleaned_data[TO], asked.cleaned_data[FROM])
        if request.method == "POST":
            return self._send(request, asked, between)
        return self._begin(request, asked, between)

    def _begin(self, request: HttpRequest, asked: StartForm, between: Between) -> HttpResponse:
        found = between.found()
        if found is not None and self._is_hidden(request, found):
            return self._refuse(request, asked)
        if found is not None:
            messages.warning(request, _THERE_IS_ONE)
            return HttpResponseRedirect(self._thread_of(request, found))
        ref_id = key_of(request.GET.get("compose"))
        if ref_id is None:
            return HttpResponseRedirect(self._address(request, between, uuid.uuid4()))
        form = self._form(request, between, initial={"ref_id": ref_id})
        return self._compose(request, between, form)

    def _send(self, request: HttpRequest, asked: StartForm, between: Between) -> HttpResponse:
        form = self._form(request, between, request.POST)
        record = partial(self._record, request)
        try:
            outcome = pressed(form, lambda: begin(between, form, request.user, record))
        except Begun:
            outcome = Outcome(form)
        if outcome.message is not None:
            tell_what_became_of(request, outcome)
            return HttpResponseRedirect(self._thread_of(request, outcome.message.conversation))
        found = between.found() if form.is_sent else None
        if found is None:
            return self._compose(request, between, outcome.form)
        if self._is_hidden(request, found):
            return self._refuse(request, asked)
        return self._look_first(request, found, outcome.form)

    def _look_first(
        self, request: HttpRequest, conversation: Conversation, unsent: ReplyForm
    ) -> HttpResponse:
        """Its thread, with what was written in the form."""
        page = Page.of(conversation, None)
        newest = page.entries[-1].message.pk if page.entries else 0
        form = ReplyForm(unsent.data, offers=Offers(conversation, request.user))
        problem = unsent.non_field_errors() or _BEGUN
        return self._thread(request, conversation, page, form.having_seen(newest, problem), {})

    def _is_hidden(self, request: HttpRequest, conversation: Conversation) -> bool:
        """Hosts may narrow what somebody sees."""
        seen = self.get_object(request, str(conversation.pk))
        return seen is None or not self.has_view_permission(request, seen)

    def _form(self, request: HttpRequest, between: Between, *args: Any, **kwargs: Any) -> FirstForm:
        conversation = between.imagined()
        contact = conversation.contact
        offers = Offers(conversation, request.user)
        if contact.name or not self._may_name(request, contact):
            return FirstForm(*args, offers=offers, **kwargs)
        # What canned replies call them.
        contact.name = request.POST.get("contact_name", "")
        return NamingForm(*args, offers=offers, **kwargs)

    def _may_name(self, request: HttpRequest, contact: Contact) -> bool:
        may = "add" if contact.pk is None else "change"
        return request.user.has_perm(f"django_ninebits.{may}_contact")

    def _record(self, request: HttpRequest, conversation: Conversation, name: str) -> None:
        """Who began it, and the name of the contact, where it had none."""
        self.log_addition(request, conversation, [{"added": {}}])
        contact = conversation.contact
        nameless = Contact.objects.using(database()).filter(pk=contact.pk, name="")
        if name and nameless.update(name=name):
            named = {"changed": {"fields": [gettext_noop("name")]}}
            # Its history, too, shows it by its name.
            contact.name = name
            self.log_change(request, contact, [named])  # type: ignore[arg-type]

    def _refuse(self, request: HttpRequest, asked: StartForm) -> HttpResponse:
        asked.add_error(TO, _HIDDEN)
        return self._ask(request, asked)

    def _ask(self, request: HttpRequest, form: StartForm | None, problem: Any = "") -> HttpResponse:
        """The page that asks for a number; what was written and cannot be sent is shown there."""
        return self._page(
            request,
            "start",
            {
                "form": form,
                "problem": problem,
                "kept": _kept(request),
                "unsent": as_sent(request.POST.get("text", "")),
            },
        )

    def _compose(self, request: HttpRequest, between: Between, form: ReplyForm) -> HttpResponse:
        """The page that asks for the text; of whoever wants none, it says so."""
        conversation = between.imagined()
        number = conversation.contact.phone_number
        refuses = opted_out(conversation.contact, self.admin_site.name)
        ref_id = form["ref_id"].value()
        return self._page(
            request,
            "begin",
            {
                "original": conversation,
                "shown_number": number.as_international,
                "is_unlisted": not number.is_valid(),
                "opted_out": refuses,
                "form": form if form.is_returned or refuses is None else None,
                "form_address": self._address(request, between, ref_id),
                "change": self._address(request, between, None),
            },
        )

    def _page(self, request: HttpRequest, name: str, context: dict[str, Any]) -> HttpResponse:
        request.current_app = self.admin_site.name
        return TemplateResponse(
            request,
            f"admin/django_ninebits/conversation/{name}.html",
            {
                **self.admin_site.each_context(request),
                "opts": self.opts,
                "media": self.media,
                "title": _("New conversation"),
                "preserved_filters": self.get_preserved_filters(request),
                **context,
            },
        )

    def _address(self, request: HttpRequest, between: Between, ref_id: object) -> str:
        """Of the form with this key; without one, of the page that asks for the number."""
        query = {TO: between.number, FROM: between.code}
        query |= {CHANGE: "1"} if ref_id is None else {"compose": str(ref_id)}
        return self._path("add", query=query | _kept(request))

    def _thread_of(self, request: HttpRequest, conversation: Conversation) -> str:
        # The address of a form that nobody has sent, as a thread is opened by a link.
        query = {"compose": str(uuid.uuid4()), **_kept(request)}
        return f"{self._path('change', conversation, query)}#nb-newest"


def _asked(request: HttpRequest, codes: list[str]) -> StartForm:
    """What the address says, with an error where it says too much or too little."""
    is_whole = TO in request.GET and (FROM in request.GET or len(codes) == 1)
    if is_whole and CHANGE not in request.GET:
        return StartForm(request.GET, codes=codes, auto_id="nb-%s")
    given = {name: request.GET[name] for name in (TO, FROM) if name in request.GET}
    return StartForm(initial=given, codes=codes, auto_id="nb-%s")


def _kept(request: HttpRequest) -> dict[str, str]:
    """What is taken along, so that the way back leads to the list as it was."""
    return {_FILTERS: request.GET[_FILTERS]} if _FILTERS in request.GET else {}
