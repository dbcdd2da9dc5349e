from django.apps import apps
from django.utils.translation import override

from django_ninebits.apps import NinebitsConfig


def test_the_label_and_the_keys_are_fixed():
    config = apps.get_app_config("django_ninebits")
    assert isinstance(config, NinebitsConfig)
    assert config.default_auto_field == "django.db.models.BigAutoField"


def test_the_app_has_a_name_in_the_admin():
    with override("en"):
        assert str(apps.get_app_config("django_ninebits").verbose_name) == "SMS"
