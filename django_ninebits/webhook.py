"""The door that 9bits posts to.

The contract, which decides what 9bits delivers again:

===  ==================================================================================
200  the text is stored, or it was a redelivery of one that is
202  it is not understood, or could not be stored as a text; its bytes are quarantined
401  not authentic: the credential is missing or wrong
405  another method than POST
413  larger than 64 KiB
503  it cannot be stored now: 9bits delivers again after 5xx, for an hour (documented)
===  ==================================================================================

After any other 4xx 9bits never delivers again (documented). So whatever is authentic is kept first,
and understood after that. Every answer is JSON, as 9bits asks.
"""

import hmac
import logging
from typing import Any

from django.contrib.auth.models import AnonymousUser
from django.core.exceptions import ImproperlyConfigured
from django.core.handlers.wsgi import WSGIRequest
from django.db import connections, transaction
from django.http import HttpRequest
from django.http.request import UnreadablePostError
from rest_framework import exceptions as drf
from rest_framework import status
from rest_framework.authentication import BaseAuthentication
from rest_framework.negotiation import BaseContentNegotiation
from rest_framework.renderers import JSONRenderer
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from django_ninebits.conf import conf
from django_ninebits.exceptions import traceback_without_values
from django_ninebits.inbox import CannotStoreNow, TakenIn, take_in
from django_ninebits.wire import MAX_DELIVERY

logger = logging.getLogger(__name__)


class Unavailable(drf.APIException):
    """Nothing was kept, and a later delivery may be."""

    status_code = status.HTTP_503_SERVICE_UNAVAILABLE
    default_detail = "The text cannot be stored now. Deliver it again later."
    default_code = "unavailable"


class TooLarge(drf.APIException):
    """No text is that long."""

    status_code = status.HTTP_413_REQUEST_ENTITY_TOO_LARGE
    default_detail = f"Larger than {MAX_DELIVERY} bytes."
    default_code = "too_large"


class NinebitsCredential(BaseAuthentication):
    """Lets in what carries one of the tokens or pairs in the settings."""

    def authenticate(self, request: Request) -> tuple[AnonymousUser, None]:
        offered = request.META.get("HTTP_AUTHORIZATION", "")
        credentials, problems = conf.webhook_credentials()
        if _opens(offered, credentials) or _anonymous_may_enter(problems):
            return AnonymousUser(), None
        if problems:
            logger.error("The webhook cannot tell who may enter: %s", problems[0])
            raise Unavailable
        logger.warning("A delivery was turned away: it offered %s.", _kind(offered))
        raise drf.AuthenticationFailed("Wrong or missing credential.")

    def authenticate_header(self, request: Request) -> str:
        return 'Bearer realm="ninebits", Basic realm="ninebits"'


class JSONWhateverIsAccepted(BaseContentNegotiation):
    """One renderer, whatever ``Accept`` or ``?format=`` ask for."""

    def select_renderer(
        self, request: Request, renderers: Any, format_suffix: str | None = None
    ) -> tuple[Any, str]:
        return renderers[0], renderers[0].media_type


class WebhookView(APIView):
    """Receives delivered texts. Every policy is set here: the class defaults are the host's."""

    http_method_names = ["post"]
    authentication_classes = [NinebitsCredential]
    permission_classes = []
    throttle_classes = []
    parser_classes = []
    renderer_classes = [JSONRenderer]
    content_negotiation_class = JSONWhateverIsAccepted
    versioning_class = None
    metadata_class = None
    schema = None

    def post(self, request: Request) -> Response:
        taken = take_in(_body(request._request))
        if taken.quarantined is not None:
            logger.warning("A delivery was quarantined as %s.", taken.quarantined.pk)
            return Response(_answer(taken), status=status.HTTP_202_ACCEPTED)
        return Response(_answer(taken))

    def http_method_not_allowed(self, request: Any, *args: Any, **kwargs: Any) -> Response:
        raise drf.MethodNotAllowed(request.method, "Only POST is taken here.")

    def get_exception_handler(self) -> Any:
        return answer_error


def answer_error(error: Exception, context: dict[str, Any]) -> Response:
    """Whatever went wrong → JSON; what nobody expected → 503, so that 9bits delivers again."""
    if isinstance(error, CannotStoreNow):
        cause = error.__cause__ or error
        logger.error("A delivery cannot be stored now.\n%s", traceback_without_values(cause))
        error = Unavailable()
    elif not isinstance(error, drf.APIException):
        logger.error("A delivery was not kept.\n%s", traceback_without_values(error))
        error = Unavailable()
    auth_header = getattr(error, "auth_header", None)
    return Response(
        {"status": "refused", "errors": [str(error.detail)]},
        status=error.status_code,
        headers={"WWW-Authenticate": auth_header} if auth_header else None,
    )


def _answer(taken: TakenIn) -> dict[str, Any]:
    if taken.quarantined is not None:
        return {"status": "quarantined", "errors": list(taken.errors)}
    return {"status": "repeated" if taken.repeated else "stored"}


def _opens(offered: str, credentials: list[bytes]) -> bool:
    """Compared in constant time. The scheme may be written in any case."""
    scheme, _, secret = offered.strip().partition(" ")
    normal = f"{scheme.capitalize()} {secret.strip()}".encode(errors="replace")
    matches = [hmac.compare_digest(normal, credential) for credential in credentials]
    return any(matches)


def _anonymous_may_enter(problems: list[ImproperlyConfigured]) -> bool:
    try:
        return conf.webhook_allow_anonymous
    except ImproperlyConfigured as problem:
        problems.append(problem)
        return False


def _kind(offered: str) -> str:
    """What is safe to log of a credential: of what kind it was."""
    scheme = offered.strip().partition(" ")[0].lower()
    if not scheme:
        return "no credential"
    return f"a wrong {scheme} credential" if scheme in {"bearer", "basic"} else "another kind"


def _body(request: HttpRequest) -> bytes:
    """The bytes of the delivery, all of them. No more than it may have are ever read."""
    declared = _declared_length(request)
    if declared > MAX_DELIVERY:
        raise TooLarge
    try:
        body = _read(request, MAX_DELIVERY + 1)
    except UnreadablePostError:
        raise Unavailable("The connection broke before the body was complete.") from None
    if len(body) > MAX_DELIVERY:
        raise TooLarge
    if len(body) < declared:
        raise Unavailable("The body is shorter than its Content-Length.")
    return body


def _declared_length(request: HttpRequest) -> int:
    declared = request.META.get("CONTENT_LENGTH") or ""
    return int(declared) if declared.isdecimal() else 0


def _read(request: HttpRequest, limit: int) -> bytes:
    # Not ``request.body``: that follows the host's DATA_UPLOAD_MAX_MEMORY_SIZE. But a middleware of
    # the host may have read it, and then the stream is at its end.
    stream: Any = request
    if isinstance(request, WSGIRequest) and _is_chunked(request):
        if not request.environ.get("wsgi.input_terminated"):
            raise Unavailable("This server cannot read chunked bodies. Send a Content-Length.")
        stream = request.environ["wsgi.input"]
    elif hasattr(request, "_body"):
        return request.body
    elif request._read_started:  # type: ignore[attr-defined]
        raise Unavailable("A middleware has consumed the body before the webhook could read it.")
    body = b""
    while len(body) < limit and (chunk := stream.read(limit - len(body))):
        body += chunk
    return body


def _is_chunked(request: HttpRequest) -> bool:
    """Without a length Django reads nothing under WSGI, and would take the text for empty."""
    chunked = "chunked" in request.META.get("HTTP_TRANSFER_ENCODING", "").lower()
    return chunked and not request.META.get("CONTENT_LENGTH")


def _outside_of_transactions(view: Any) -> Any:
    """Without ``ATOMIC_REQUESTS``, on every alias: a rolled back answer must not lose the text."""
    for alias in connections:
        view = transaction.non_atomic_requests(using=alias)(view)
    return view


webhook = _outside_of_transactions(WebhookView.as_view())
