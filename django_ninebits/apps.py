"""The app."""

from django.apps import AppConfig
from django.core.checks import Tags, register
from django.utils.translation import gettext_lazy as _


class NinebitsConfig(AppConfig):
    """Two-way SMS over 9bits."""

    name = "django_ninebits"
    verbose_name = _("SMS")
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        """Bind the system checks, and what answers texts by itself."""
        # Here, because models cannot be imported before all apps are there.
        from django_ninebits import checks, optout
        from django_ninebits.signals import message_received

        for check in (
            checks.check_apps,
            checks.check_settings,
            checks.check_connection,
            checks.check_handset,
        ):
            register(check, self.label)
        register(checks.check_deployment, self.label, deploy=True)
        register(checks.check_charset, Tags.database)
        message_received.connect(optout.answer, dispatch_uid="django_ninebits.optout")
