"""The proxy of a request: the variables of an environment, read as curl, requests, httpx and Go read them."""

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st
from yarl import URL

from spark_llm.errors import ConfigError
from spark_llm.transport.proxy import is_exempt, proxy_of
from tests.support.strategies import TEXTS

PROXY = "http://proxy:3128"


@pytest.mark.parametrize(
    ("no_proxy", "url"),
    [
        ("*", "https://any.example"),
        ("x.example,*", "https://any.example"),
        ("*", "https://192.0.2.1"),
        ("model.example", "https://model.example"),
        ("model.example", "https://a.model.example"),
        ("MODEL.example", "https://model.EXAMPLE"),
        ("model.example.", "https://model.example"),
        ("model.example", "https://model.example."),
        (".model.example", "https://a.model.example"),
        (".model.example", "https://model.example"),
        ("*.model.example", "https://a.b.model.example"),
        ("a.example, model.example", "https://model.example"),
        ("a.example model.example", "https://model.example"),
        (" a.example ,\tmodel.example ", "https://model.example"),
        ("model.example:443", "https://model.example"),
        ("model.example:8000", "http://model.example:8000"),
        (".example:8000", "http://model.example:8000"),
        ("192.0.2.7", "https://192.0.2.7"),
        ("192.0.2.7:80", "http://192.0.2.7"),
        ("10.0.0.0/8", "https://10.200.3.4"),
        ("10.1.2.3/8", "https://10.200.3.4"),
        ("192.0.2.7/32", "https://192.0.2.7:8443"),
        ("10.0.0.0/8", "https://[::ffff:10.200.3.4]"),
        ("2001:db8::1", "https://[2001:db8::1]"),
        ("[2001:db8::1]", "https://[2001:db8::1]"),
        ("[2001:db8:0::1]:443", "https://[2001:db8::1]"),
        ("2001:db8::/32", "https://[2001:db8:1::1]"),
        ("[2001:db8::]/32", "https://[2001:db8:1::1]"),
        ("", "http://127.0.0.1:8000"),
        ("", "http://127.9.9.9"),
        ("", "http://localhost"),
        ("", "http://[::1]:8000"),
    ],
)
def test_a_host_in_no_proxy_is_reached_without_a_proxy(no_proxy: str, url: str) -> None:
    """Entries are names with their subdomains, addresses, ranges and ports; this machine needs no entry."""
    assert is_exempt(URL(url).host or "", URL(url).port, no_proxy)
    assert proxy_of(URL(url), {"http": PROXY, "https": PROXY, "all": PROXY, "no": no_proxy}) is None


@pytest.mark.parametrize(
    ("no_proxy", "url"),
    [
        ("", "https://model.example"),
        (", ,", "https://model.example"),
        (".", "https://model.example"),
        (":443", "https://model.example"),
        ("model", "https://model.example"),
        ("model.example", "https://amodel.example"),
        ("*.model.example", "https://model.example"),
        ("model.example:8000", "https://model.example"),
        ("192.0.2.7:80", "https://192.0.2.7"),
        ("192.0.2", "https://192.0.2.7"),
        ("2.7", "https://192.0.2.7"),
        ("10.0.0.0/8", "https://11.0.0.1"),
        ("10.0.0.0/8", "https://ten.example"),
        ("10.0.0.0/99", "https://10.0.0.0"),
        ("[2001:db8::1]:80", "https://[2001:db8::1]"),
        ("2001:db8::/32", "https://[2001:db9::1]"),
    ],
)
def test_any_other_host_is_reached_through_the_proxy(no_proxy: str, url: str) -> None:
    """An unreadable entry matches no host."""
    assert URL(PROXY) == proxy_of(URL(url), {"http": PROXY, "https": PROXY, "no": no_proxy})


@given(st.ip_addresses(v=4), st.ip_addresses(v=4), st.integers(0, 32))
def test_a_range_covers_its_addresses(host: ipaddress.IPv4Address, base: ipaddress.IPv4Address, bits: int) -> None:
    """A host is exempt if its first bits are those of the range."""
    same = int(host) >> (32 - bits) == int(base) >> (32 - bits)
    assert (same or host.is_loopback) == is_exempt(str(host), 443, f"{base}/{bits}")


ENTRIES = st.sampled_from(
    ("model.example", ".example", "*.b.example", "10.0.0.0/8", "10.1.2.3", "[2001:db8::1]:80", "b.example:443", "x")
)
HOSTS = st.sampled_from(("model.example", "a.b.example", "b.example", "10.1.2.3", "10.9.9.9", "2001:db8::1", "other"))


@given(st.lists(ENTRIES), st.sampled_from((",", " ", ", ", " ,", ",,")), HOSTS, st.sampled_from((80, 443)))
def test_a_list_covers_what_its_entries_cover(entries: list[str], between: str, host: str, port: int) -> None:
    """The order, the separators and the case do not matter."""
    alone = any(is_exempt(host, port, entry) for entry in entries)
    assert alone == is_exempt(host.upper(), port, between.join(entries[::-1]).upper())


@pytest.mark.waits
@given(st.text("[]:./*%0aé² ,", max_size=12) | TEXTS, st.text("[]:./*%0aé²", max_size=12) | TEXTS)
def test_no_list_raises(no_proxy: str, host: str) -> None:
    """Any text of a variable can be read, and `*` at its end covers every host."""
    is_exempt(host, 443, no_proxy)
    assert is_exempt(host, 443, f"{no_proxy},*")


@pytest.mark.parametrize(
    ("proxies", "proxy"),
    [
        ({}, None),
        ({"http": PROXY}, None),
        ({"https": PROXY, "all": "http://other:1"}, PROXY),
        ({"https": "", "all": PROXY}, PROXY),
        ({"https": " proxy:3128 "}, PROXY),
        ({"https": "https://proxy:3129/"}, "https://proxy:3129/"),
        ({"https": "http://user:p%40ss%2F@proxy:3128"}, "http://user:p%40ss%2F@proxy:3128"),
        ({"https": "http://[2001:db8::1]:3128"}, "http://[2001:db8::1]:3128"),
        ({"https": "socks5://proxy:1080", "no": "model.example"}, None),
    ],
)
def test_the_proxy_is_of_the_scheme_or_else_of_all(proxies: dict[str, str], proxy: str | None) -> None:
    """`host:port` is enough; an unusable proxy is no error for an exempt host."""
    assert (None if proxy is None else URL(proxy)) == proxy_of(URL("https://model.example/v1"), proxies)


@pytest.mark.parametrize("address", ["socks5://{}", "socks5h://{}", "SOCKS4://{}", "socks4a://{}", "socks://{}"])
@pytest.mark.parametrize("scheme", ["https", "all"])
def test_a_socks_proxy_is_an_error(scheme: str, address: str) -> None:
    """The message has the variable and the kind of proxy, without the password."""
    with pytest.raises(
        ConfigError, match=f"{scheme.upper()}_PROXY names a SOCKS proxy.*Hint: set HTTPS_PROXY"
    ) as raised:
        proxy_of(URL("https://model.example"), {scheme: address.format("user:hunter2@proxy:1080")})
    assert "hunter2" not in str(raised.value)


@pytest.mark.parametrize(
    "address",
    [
        "http://user:hunter2@proxy:port",
        "http://user:hunter2@proxy:99999",
        "http://user:hunter2@[::1",
        "http://user:hunter2@",
        "http://user:12/hunter2@proxy:3128",
        "http://user:12#hunter2@proxy:3128",
        "http://user:12?hunter2@proxy:3128",
        "http://us%3Aer:hunter2@proxy:3128",
        "http://user:hunter2%E4%BD%A0@proxy:3128",
        "ftp://user:hunter2@proxy:21",
        "//user:hunter2@proxy:3128",
    ],
)
def test_an_unreadable_address_is_not_printed(address: str) -> None:
    """The message has the variable and the format, since a password may be anywhere in the address."""
    with pytest.raises(ConfigError, match=r"in HTTPS_PROXY cannot be read.*Hint: write it as") as raised:
        proxy_of(URL("https://model.example"), {"https": address})
    assert "hunter2" not in str(raised.value)
