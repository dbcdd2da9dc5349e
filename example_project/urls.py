from django.conf import settings
from django.contrib import admin
from django.urls import include, path
from django.views.generic import RedirectView

urlpatterns = [
    path("", RedirectView.as_view(pattern_name="admin:index")),
    path("admin/", admin.site.urls),
    path("hooks/9bits/", include("django_ninebits.urls")),
]

if settings.DEBUG:
    urlpatterns += [path("phone/", include("django_ninebits.handset"))]
