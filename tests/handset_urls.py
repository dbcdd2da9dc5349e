from django.urls import include, path

from tests import urls

urlpatterns = [*urls.urlpatterns, path("handset/", include("django_ninebits.handset"))]
