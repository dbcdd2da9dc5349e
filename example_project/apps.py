from django.apps import AppConfig


class ExampleProjectConfig(AppConfig):
    name = "example_project"

    def ready(self) -> None:
        # The import connects the receivers.
        from example_project import receivers  # noqa: F401
