import time
import unicodedata
from urllib.parse import urlsplit

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from django_ninebits.links import LONGEST, Link, parts

#: What could make one address look like another, or end it early.
PIECES = [
    *("https://", "HTTP://", "www.", "javascript:", "//", "/", "\\", "@", ":", "?", "#", "%2f"),
    *("good.com", "evil.com", "127.1", "ß", "é", "。", "．", "\u202e", "\u200b", "xn--", "[::1]"),
    *(" ", "\n", "\t", "\x00", '"', "'", "<", ">", "&", "&quot;", "(", ")", ".", ",", "-", "🙏"),
]
TEXTS = st.lists(st.sampled_from(PIECES) | st.text(max_size=3), max_size=12).map("".join)


def links(text):
    return [part for part in parts(text) if isinstance(part, Link)]


def only(text):
    (link,) = links(text)
    return link


@pytest.mark.parametrize(
    ("text", "written", "address"),
    [
        ("See https://shop.ng/a?b=c&d=1#e.", "https://shop.ng/a?b=c&d=1#e", None),
        ("www.shop.ng", "www.shop.ng", "http://www.shop.ng"),
        ("(HTTPS://Shop.NG/A)", "HTTPS://Shop.NG/A", "https://shop.ng/A"),
        ("https://shop.ng/A_(b))", "https://shop.ng/A_(b)", None),
        ("«https://shop.ng/»!", "https://shop.ng/", None),
        ("pay...https://shop.ng:8443…", "https://shop.ng:8443", None),
        ("http://1.2.3.4/x", "http://1.2.3.4/x", None),
        ("https://shop.ng/%41%zz", "https://shop.ng/%41%zz", None),
        ("https://shop.ng/é 🙏", "https://shop.ng/é", "https://shop.ng/%C3%A9"),
        (
            "https://shop.ng/\\@evil.com",
            "https://shop.ng/\\@evil.com",
            "https://shop.ng/%5C@evil.com",
        ),
        ("https://shop.ng<b>", "https://shop.ng", None),
        ("https://Éxample.com", "https://Éxample.com", "https://xn--xample-9ua.com"),
        ("https://पंजाब.com/", "https://पंजाब.com/", "https://xn--i1b6cwbk3g.com/"),
    ],
)
def test_an_address_is_a_link_that_leads_where_it_says(text, written, address):
    link = only(text)
    assert (link.written, link.address) == (written, address or written)
    assert urlsplit(link.address).hostname == link.host


@pytest.mark.parametrize(
    "text",
    [
        "shop.ng",
        "ada@www.shop.ng",
        "xhttps://shop.ng",
        "javascript:alert(1)",
        "javascript://www.shop.ng/%0aalert(1)",
        "data:text/html,x",
        "ftp://shop.ng",
        "https://localhost/",
        "https:///shop.ng",
        "http://",
        "www.",
        "https://shop..ng",
        "https://-shop.ng",
        "https://shop.ng:123456",
        "https://[::1]/",
        f"https://{'a.' * 127}ng",
        f"https://shop.ng/{'x' * LONGEST}",
        # What seems to be the host is the name of a user.
        "https://good.com@evil.ng",
        "https://good.com:443@evil.ng/",
        # Here browsers differ from whoever reads it.
        "https://evil.ng\\@good.com",
        "http://127.1",
        "http://0x7f.0.0.1/",
        "http://1.2.3.04",
        "https://faß.de",
        "https://ｇood.com",
        "https://good。com",
        "https://good.com\u2044.evil.ng",
        "https://xn--\u00e9.ng",
        # In the other direction, or unseen.
        "https://\u202emoc.doog",
        "https://good.com/\u202egpj.exe",
        "https://go\u200bod.com",
        "https://good.com/\x07",
    ],
)
def test_what_could_lead_elsewhere_is_text(text):
    assert parts(text) == [text]


def test_several_links_stand_between_what_was_written():
    assert [
        part.written if isinstance(part, Link) else part
        for part in parts("1 https://a.ng, 2 www.b.ng\n3")
    ] == ["1 ", "https://a.ng", ", 2 ", "www.b.ng", "\n3"]
    assert parts("") == []


@given(TEXTS)
def test_nothing_of_a_text_is_lost_or_added(text):
    shown = [part.written if isinstance(part, Link) else part for part in parts(text)]
    assert "".join(shown) == text


@given(TEXTS)
@example("")
@example("https://good.com")
def test_an_address_is_http_in_ascii_and_its_host_is_the_one_that_is_named(text):
    for link in links(text):
        address = urlsplit(link.address)
        assert address.scheme in {"http", "https"}
        assert (address.hostname, address.username) == (link.host, None)
        assert link.address.isascii()
        assert not set(link.address) & set('"<>\\^`{|} \t\n\r\0')


@given(TEXTS)
@example("")
@example("https://good.com")
def test_what_is_written_of_a_link_reads_in_one_direction(text):
    for link in links(text):
        assert not {unicodedata.category(character) for character in link.written} & {"Cf", "Cc"}


@pytest.mark.parametrize(
    "text", ["https://" * 8000, "https://a.ng/" + ")" * 60000, "www.a." * 10000, "(" * 60000]
)
def test_the_longest_text_takes_no_time(text):
    began = time.perf_counter()
    parts(text)
    assert time.perf_counter() - began < 2
