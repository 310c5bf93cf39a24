"""Which addresses an image may be fetched from.

An image URL comes from outside, so it must not reach what only this machine or its network can reach (server-side
request forgery). The check stands where a connection is made: the caller connects to an address that
`AddressPolicy.addresses` returned and never resolves the name a second time, so that a name server cannot answer twice
differently. How an image is fetched is in `fetcher.py`.
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Callable, Iterable, Sequence

import httpx

from labeling_assets.errors import ConfigurationError, ImageAddressRefusedError

SCHEMES = ("http", "https")
SHOWN_URL_CHARACTERS = 200

IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address
Resolver = Callable[[str, int], Sequence[str]]

# RFC 6052: an IPv6-only network reaches IPv4 hosts under this prefix; the last 32 bits are the IPv4 address.
_NAT64 = ipaddress.ip_network("64:ff9b::/96")
# RFC 4291, 2.4: all global unicast addresses that have been assigned so far.
_GLOBAL_UNICAST = ipaddress.ip_network("2000::/3")
# Ranges that `is_global` of some supported Python versions still takes for global.
_NOT_GLOBAL = (
    ipaddress.ip_network("192.88.99.0/24"),  # RFC 7526: anycast of 6to4 relays
    ipaddress.ip_network("3fff::/20"),  # RFC 9637: documentation
)


def parse_image_url(url: str) -> httpx.URL:
    """The URL in normal form: host in lower case and IDNA, path percent-encoded.

    Raises:
        ImageAddressRefusedError: It cannot be read, is not http or https, has no host, or has user information.
    """
    try:
        parsed = httpx.URL(url.strip())
        host = parsed.host
    except (httpx.InvalidURL, ValueError) as error:
        raise ImageAddressRefusedError(f"The image URL cannot be read ({len(url)} characters).") from error
    if parsed.scheme not in SCHEMES:
        raise ImageAddressRefusedError(f"Images are fetched by http and https, not by {parsed.scheme[:20]!r}.")
    if not host or not (parsed.port is None or 0 < parsed.port < 65536):
        raise ImageAddressRefusedError(f"The image URL {shown(parsed)} has no usable host and port.")
    if parsed.userinfo:
        raise ImageAddressRefusedError(f"The image URL {shown(parsed)} carries a user name or password.")
    return parsed


def shown(url: httpx.URL) -> str:
    """The URL for people: without user information, and without the query, which may carry a signature."""
    path, question_mark, _ = url.raw_path.decode("ascii").partition("?")
    text = f"{url.scheme}://{url.netloc.decode('ascii')}{path}"
    shortened = text if len(text) <= SHOWN_URL_CHARACTERS else f"{text[:SHOWN_URL_CHARACTERS]}…"
    return f"{shortened}?…" if question_mark else shortened


def is_public(address: IPAddress) -> bool:
    """Whether an address is on the public internet, also as the IPv4 address that an IPv6 address carries."""
    if address.is_multicast or any(address in network for network in _NOT_GLOBAL if network.version == address.version):
        return False
    if isinstance(address, ipaddress.IPv4Address):
        return address.is_global
    if address in _NAT64:
        return is_public(ipaddress.IPv4Address(int(address) & 0xFFFFFFFF))
    if address.sixtofour is not None and not is_public(address.sixtofour):
        return False
    if address.teredo is not None and not all(is_public(carried) for carried in address.teredo):
        return False
    return address in _GLOBAL_UNICAST and address.is_global


def system_resolver(host: str, port: int) -> Sequence[str]:
    """Addresses of a host as the operating system resolves it, in its order of preference.

    Raises:
        OSError: The name is unknown, or no name server answers.
        UnicodeError: The name is none that the name system can hold.
    """
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(sockaddr[0]) for *_, sockaddr in found))


class AddressPolicy:
    """Resolves a host and refuses it unless every address is public.

    Args:
        allowed_private: `host:port` pairs that may be fetched whatever their address; the host as the URL writes it.
        resolve: Turns host and port into addresses.

    Raises:
        ConfigurationError: An entry of `allowed_private` is not `host:port`.
    """

    def __init__(self, allowed_private: Iterable[str] = (), resolve: Resolver = system_resolver) -> None:
        self._allowed = frozenset(_host_and_port(entry) for entry in allowed_private)
        self._resolve = resolve

    def addresses(self, host: str, port: int) -> Sequence[str]:
        """Addresses that may be connected to, none of which is to be resolved again.

        Raises:
            ImageAddressRefusedError: An address of the host is not public, or the name cannot exist.
            OSError: The name is unknown, or no name server answers.
        """
        try:
            addresses = self._resolve(host, port)
        except UnicodeError as error:
            raise ImageAddressRefusedError(f"No host can have the name {host[:80]!r}.") from error
        if (host, port) not in self._allowed and not all(is_public(_address(text)) for text in addresses):
            raise ImageAddressRefusedError(
                f"{host}:{port} leads to an address that is not public.",
                f"Add {host}:{port} to LABELING_ALLOW_PRIVATE_IMAGE_HOSTS if it is meant to be fetched.",
            )
        return addresses


def _address(text: str) -> IPAddress:
    return ipaddress.ip_address(text.partition("%")[0])


def _host_and_port(entry: str) -> tuple[str, int]:
    """Host and port of an entry, in the form in which `httpx.URL` gives them."""
    try:
        url = parse_image_url(f"http://{entry}")
    except ImageAddressRefusedError:
        url = httpx.URL("http://")
    # httpx.URL leaves out the port that belongs to the scheme.
    port = url.port or (80 if entry.endswith(":80") else None)
    if not url.host or port is None or url.raw_path != b"/":
        raise ConfigurationError(
            f"LABELING_ALLOW_PRIVATE_IMAGE_HOSTS: {entry!r} is not host:port.", "Write, for example, 127.0.0.1:8080."
        )
    return url.raw_host.decode("ascii"), port
