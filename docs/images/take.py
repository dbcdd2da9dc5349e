#!/usr/bin/env python
"""Takes the pictures of the inbox that stand here: ``make screenshots``.

Needs a Chromium on PATH and a font with emoji. The clock stands still while they are taken, so that
they change only when the inbox does.
"""

import os
import shutil
import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path
from unittest.mock import patch

import django
from django.conf import settings
from django.core.management import call_command
from playwright.sync_api import sync_playwright

HERE = Path(__file__).parent
CHROMIUMS = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome")
INBOX = "/admin/django_ninebits/conversation/"
NOW = datetime(2026, 3, 12, 9, 41, tzinfo=UTC)

#: Who, their number, their network, how many hours ago, what they texted, and the answer.
OTHERS = [
    ("Yetunde Ogunleye", "+2348034410275", "mtn", 50, "Are you open on Saturday?", "Yes, 9 to 4."),
    ("Ibrahim Musa", "+2348096620148", "9mobile", 27, "How much is the rice?", "₦12,000 a bag."),
    ("", "+2347015583920", "airtel", 25, "STATUS 4409", "Order 4409 was delivered on Tuesday."),
    ("Hauwa Bello", "+2348052217764", "glo", 3, "Na gode, it has arrived 🎉", None),
    ("Tunde Bakare", "+2348161093357", "mtn", 2, "My parcel came open!", None),
    ("Chidinma Nwosu", "+2349038871206", "airtel", 1, "Please bring it to Surulere", None),
]


def tell(clock):
    """What happened until now, the oldest first."""
    from django.contrib.auth.models import User

    from django_ninebits import services, testing
    from django_ninebits.models import Contact
    from django_ninebits.wire import write_date

    funke = User.objects.create_superuser("funke", "", "funke", first_name="Funke")

    def hears(minutes_ago, name, number, telco, text):
        clock.return_value = NOW - timedelta(minutes=minutes_ago)
        date = write_date(clock.return_value)
        message = testing.receive(
            text, sender=number, telco=telco, session_id=number[-8:], sent_date=date
        )
        Contact.objects.filter(phone_number=number).update(name=name)
        return message

    def says(minutes_ago, message, text, **schedule):
        clock.return_value = NOW - timedelta(minutes=minutes_ago)
        message.conversation.refresh_from_db()
        message.conversation.mark_read_up_to(message.pk)
        services.reply(message, text, author=funke, **schedule)

    with testing.outbox() as sent:
        for name, number, telco, hours, text, answer in OTHERS:
            message = hears(hours * 60, name, number, telco, text)
            if answer:
                says(hours * 60 - 9, message, answer)
        ada = ("Adaeze Okafor", "+2348023319046", "mtn")
        message = hears(34, *ada, "Good morning, where is my order 4471?")
        says(30, message, "Good morning Adaeze! It left Ikeja at 9 and is with you before 2 pm.")
        message = hears(27, *ada, "Great. Can I pay the ₦4,500 to the rider in cash?")
        sent.uncertain()
        says(25, message, "Yes, cash or transfer, as you like 🙏")
        sent.refuse("Invalid recipient")
        says(19, message, "The rider is Sunday, his number is 0803 555 0142.")
        message = hears(4, *ada, "Thank you!")
        evening = NOW + timedelta(hours=8)
        says(2, message, "Did all arrive well? Text YES or NO.", send_at=evening)
    clock.return_value = NOW


def take(site):
    with sync_playwright() as playwright:
        program = next(filter(None, map(shutil.which, CHROMIUMS)))
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        page = browser.new_page(
            base_url=site, viewport={"width": 1200, "height": 700}, color_scheme="light"
        )
        page.add_init_script("localStorage.setItem('django.admin.navSidebarIsOpen', false)")
        page.goto(f"/admin/login/?next={INBOX}")
        page.fill("[name=username]", "funke")
        page.fill("[name=password]", "funke")
        page.click("[type=submit]")
        page.wait_for_selector("text=Adaeze Okafor")
        page.screenshot(path=HERE / "inbox.png")
        page.set_viewport_size({"width": 1200, "height": 970})
        page.click("text=Adaeze Okafor")
        page.wait_for_selector(".nb-figures")
        page.screenshot(path=HERE / "thread.png", full_page=True)
        browser.close()


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as directory, patch("django.utils.timezone.now") as clock:
        clock.return_value = NOW
        os.environ["DJANGO_SETTINGS_MODULE"] = "example_project.settings"
        os.environ["EXAMPLE_DATABASE"] = f"{directory}/pictures.sqlite3"
        django.setup()
        settings.NINEBITS = {"API_TOKEN": "a-token-of-pictures", "SHORT_CODE": "48974"}
        from example_project.management.commands.demo import serve

        call_command("migrate", verbosity=0)
        tell(clock)
        with serve(0) as site:
            take(site)
