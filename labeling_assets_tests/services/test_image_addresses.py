from __future__ import annotations

import ipaddress

import httpx
import pytest
from faulty_image_host import resolving_to
from hypothesis import given
from hypothesis import strategies as st

from labeling_assets.errors import ConfigurationError, ImageAddressRefusedError
from labeling_assets.services.images.addresses import AddressPolicy, is_public, parse_image_url, shown

PUBLIC_IPV4 = "93.184.216.34"
# Written down from the IANA special-purpose registries, not taken from the ipaddress module.
PRIVATE_NETWORKS = (
    "0.0.0.0/8",
    "10.0.0.0/8",
    "100.64.0.0/10",
    "127.0.0.0/8",
    "169.254.0.0/16",
    "172.16.0.0/12",
    "192.0.2.0/24",
    "192.88.99.0/24",
    "192.168.0.0/16",
    "198.18.0.0/15",
    "198.51.100.0/24",
    "203.0.113.0/24",
    "224.0.0.0/4",
    "240.0.0.0/4",
    "::/96",
    "::ffff:0:0/96",
    "64:ff9b:1::/48",
    "64:ff9b::7f00:0/104",
    "64:ff9b::a00:0/104",
    "100::/64",
    "2001::/32",
    "2001:db8::/32",
    "2002:7f00::/24",
    "2002:a00::/24",
    "2002:c0a8::/32",
    "3fff::/20",
    "5f00::/16",
    "fc00::/7",
    "fe80::/10",
    "fec0::/10",
    "ff00::/8",
)


@pytest.mark.parametrize("network", PRIVATE_NETWORKS)
def test_the_first_and_last_address_of_a_private_network_are_not_public(network: str) -> None:
    block = ipaddress.ip_network(network)
    assert not is_public(block[0])
    assert not is_public(block[-1])


@pytest.mark.parametrize(
    "address",
    [PUBLIC_IPV4, "1.1.1.1", "100.63.255.255", "172.32.0.1", "2606:4700::1111", "2a00:1450::1", "64:ff9b::5db8:d822"],
)
def test_an_address_of_the_internet_is_public(address: str) -> None:
    assert is_public(ipaddress.ip_address(address))


@given(st.sampled_from(PRIVATE_NETWORKS), st.integers(min_value=0))
def test_no_address_of_a_private_network_is_public(network: str, offset: int) -> None:
    block = ipaddress.ip_network(network)
    assert not is_public(block[offset % block.num_addresses])


@given(st.ip_addresses(v=4))
def test_an_ipv4_address_inside_ipv6_is_judged_as_itself(address: ipaddress.IPv4Address) -> None:
    number = int(address)
    assert is_public(ipaddress.IPv6Address((0x64FF9B << 96) | number)) == is_public(address)
    assert not is_public(ipaddress.IPv6Address((0xFFFF << 32) | number))
    assert not is_public(ipaddress.IPv6Address(number))
    if not is_public(address):
        assert not is_public(ipaddress.IPv6Address((0x2002 << 112) | (number << 80) | 1))


def test_a_host_with_only_public_addresses_may_be_fetched() -> None:
    policy = AddressPolicy(resolve=resolving_to(PUBLIC_IPV4, "2606:4700::1111"))
    assert policy.addresses("shop.example", 443) == (PUBLIC_IPV4, "2606:4700::1111")


@pytest.mark.parametrize("private", ["127.0.0.1", "10.1.2.3", "::1", "fe80::1%eth0", "169.254.169.254"])
def test_one_private_address_among_public_ones_refuses_the_host(private: str) -> None:
    policy = AddressPolicy(resolve=resolving_to(PUBLIC_IPV4, private))
    with pytest.raises(ImageAddressRefusedError, match=r"shop\.example:443 leads to an address that is not public"):
        policy.addresses("shop.example", 443)


@pytest.mark.parametrize(
    "host",
    ["localhost", "127.0.0.1", "127.1", "2130706433", "0x7f.0.0.1", "0177.0.0.1", "0", "::1", "::ffff:127.0.0.1"],
)
def test_every_spelling_of_loopback_is_refused(host: str) -> None:
    with pytest.raises(ImageAddressRefusedError):
        AddressPolicy().addresses(host, 80)


@pytest.mark.parametrize(
    ("entry", "host", "port"),
    [
        ("127.0.0.1:8080", "127.0.0.1", 8080),
        ("Images.Internal:80", "images.internal", 80),
        ("[::1]:443", "::1", 443),
        ("bücher.example:8080", "xn--bcher-kva.example", 8080),
    ],
)
def test_an_allowed_host_and_port_may_be_fetched_whatever_its_address(entry: str, host: str, port: int) -> None:
    policy = AddressPolicy([entry], resolving_to("10.0.0.7"))
    assert policy.addresses(host, port) == ("10.0.0.7",)
    with pytest.raises(ImageAddressRefusedError):
        policy.addresses(host, port + 1)
    with pytest.raises(ImageAddressRefusedError):
        policy.addresses("x" + host, port)


@pytest.mark.parametrize(
    "entry", ["", "localhost", "http://localhost:80", "a:b@c:80", "host:80/path", "host:x", "host:99999999999999999999"]
)
def test_an_allow_list_entry_that_is_not_host_and_port_is_a_configuration_error(entry: str) -> None:
    with pytest.raises(ConfigurationError, match="is not host:port"):
        AddressPolicy([entry])


def test_a_name_that_cannot_exist_is_refused() -> None:
    with pytest.raises(ImageAddressRefusedError, match="No host can have the name"):
        AddressPolicy().addresses("a" * 70 + ".example", 80)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "no url",
        "/relative.jpg",
        "//shop.example/a.jpg",
        "ftp://shop.example/a.jpg",
        "file:///etc/passwd",
        "data:image/png;base64,AAAA",
        "gopher://127.0.0.1:6379/_x",
        "http:///a.jpg",
        "http://:80/a.jpg",
        "http://user@shop.example/a.jpg",
        "http://user:pw@shop.example/a.jpg",
        "http://shop.example\\@127.0.0.1/a.jpg",
        "http://shop.example:0/a.jpg",
        "http://shop.example:65536/a.jpg",
        "http://shop.example/a\x00.jpg",
        "http://shop.example/a\r\nHost: x",
        "http://[::1/a.jpg",
        "http://shop.example/\udc80.jpg",
        "http://" + "a" * 70_000,
    ],
)
def test_a_url_that_is_not_plain_http_is_refused(url: str) -> None:
    with pytest.raises(ImageAddressRefusedError):
        parse_image_url(url)


def test_a_url_is_brought_to_normal_form() -> None:
    url = parse_image_url(" HTTPS://Bücher.example:443/Cốc sứ (1).jpg?w=1#top\n")
    assert str(url.copy_with(fragment=None)) == "https://xn--bcher-kva.example/C%E1%BB%91c%20s%E1%BB%A9%20(1).jpg?w=1"


def test_a_url_is_shown_without_what_may_be_secret() -> None:
    url = httpx.URL("https://user:hunter2@shop.example:8443/a.jpg?X-Amz-Signature=s3cret#frag")
    assert shown(url) == "https://shop.example:8443/a.jpg?…"
    assert len(shown(httpx.URL("https://shop.example/" + "a" * 5000))) < 300


@given(st.one_of(st.text(), st.from_regex(r"https?://[a-z:@/?#\[\].%\\ -]{0,30}", fullmatch=True)))
def test_any_text_is_either_refused_or_a_url_with_a_host_and_nothing_secret(text: str) -> None:
    try:
        url = parse_image_url(text)
    except ImageAddressRefusedError:
        return
    assert url.scheme in {"http", "https"}
    assert url.host
    assert not url.userinfo


@given(st.text(st.characters(exclude_categories=["C", "Z"]), min_size=12))
def test_no_refusal_repeats_a_password(password: str) -> None:
    with pytest.raises(ImageAddressRefusedError) as refusal:
        parse_image_url(f"https://user:p{password}@shop.example/a.jpg")
    assert password not in str(refusal.value)
