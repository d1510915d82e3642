"""Archives from the package index that pip is configured for: downloaded, never built, unpacked or installed.

`pip download` builds a source archive to learn its metadata, which runs the archive's own code; `unearth`, the client
of the package manager PDM, only lists and downloads. pip is asked for its configuration alone: indexes, folders, proxy,
certificates, time limit and retries hold as for `pip download`; credentials come from addresses, netrc or keyring.
"""

import ast
import logging
import os
import re
import shutil
import ssl
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from logging.handlers import BufferingHandler
from pathlib import Path

import httpx2
from packaging.requirements import Requirement
from pip._internal.models.index import PyPI  # pip's default index, for which it has no public name
from unearth import HashMismatchError, Link, PackageFinder, UnpackError
from unearth.auth import MultiDomainBasicAuth
from unearth.fetchers import PyPIClient

from stages.common.errors import PipelineError

RETRIES, TIMEOUT = 5, 15
"""pip's defaults: further attempts at one index; seconds without an answer."""

logging.getLogger("unearth").addHandler(logging.NullHandler())
logging.getLogger("unearth").propagate = False  # a warning can quote a line of netrc


@dataclass
class Findings:
    """What an index has in place of the archive that is wanted."""

    versions: list[str] = field(default_factory=list)
    hashes: dict[str, str] = field(default_factory=dict)
    """The sha256 of files of the right version, by name."""
    failures: list[str] = field(default_factory=list)


def download(requirement: Requirement, sha256: str, folder: Path) -> Path:
    """Download the file of `requirement`, for any platform, that has this sha256 into `folder`; returns its path.

    Raises:
        PipelineError: no index has it; the message says what they have, and which of them failed, without credentials.
    """
    options, findings = pip_options(), Findings()
    retries = int(options.get("retries", RETRIES))
    with client(options) as session:
        for finder in finders(options, session):
            with explained(findings, finder.sources[0]["url"]):
                if archive := search(finder, requirement, sha256, folder, findings, retries):
                    return archive
    raise PipelineError(f"package:{requirement}: {without_credentials(reason(findings, sha256))}")


def search(
    finder: PackageFinder, requirement: Requirement, sha256: str, folder: Path, findings: Findings, retries: int
) -> Path | None:
    """The downloaded file, or None if the finder's index has none with this sha256; starts anew if the network fails.

    Raises:
        httpx2.HTTPError: the network or the server failed in every attempt, `retries` and one.
        UnpackError: the address is malformed, or the server refused to hand out the file.
    """
    for retry in range(retries):
        with suppress(httpx2.HTTPError):
            return try_once(finder, requirement, sha256, folder, findings)
        time.sleep(0.25 * 2**retry)
    return try_once(finder, requirement, sha256, folder, findings)


def try_once(
    finder: PackageFinder, requirement: Requirement, sha256: str, folder: Path, findings: Findings
) -> Path | None:
    """One attempt of `search`; files whose sha256 the index does not state are downloaded to learn it."""
    try:
        found = finder.find_best_match(requirement, allow_prereleases=True)
    except (ValueError, httpx2.InvalidURL):  # their texts can hold a part of a password
        raise UnpackError("this address, or its page, is malformed") from None
    findings.versions += [package.version for package in found.candidates]
    for link in (package.link for package in found.applicable):
        if link.is_vcs or (link.is_file and not link.file_path.is_file()):
            continue  # a checkout or a folder has no sha256
        (stated,) = (link.hash_option or {}).get("sha256", [sha256])
        if stated != sha256:
            findings.hashes[link.filename] = stated
            continue
        try:
            return copied(finder.download(link, folder, {"sha256": [sha256]}), link, folder)
        except HashMismatchError as error:
            findings.hashes[link.filename] = error.actual["sha256"]
    return None


def copied(archive: Path, link: Link, folder: Path) -> Path:
    """The archive in `folder`: a file of this machine is not downloaded but used where it lies."""
    return shutil.copyfile(archive, folder / link.filename) if link.is_file else archive


def reason(findings: Findings, sha256: str) -> str:
    """Why there is no archive, in one line."""
    failed = "".join(f"; {failure}" for failure in dict.fromkeys(findings.failures))
    if findings.hashes:
        listed = ", ".join(f"{found} ({name})" for name, found in [*findings.hashes.items()][:5])
        return (
            f"expected an archive with sha256 {sha256}, found {listed}; "
            f"correct the revision if you trust what the index serves{failed}"
        )
    if findings.versions:
        return f"no such version; the package index has {', '.join(dict.fromkeys(findings.versions))}{failed}"
    return (
        "not found, or the package index cannot be reached; check the name, the network and `pip config list`" + failed
    )


def without_credentials(text: str) -> str:
    """The text without what precedes the host in its addresses, and without queries, which can hold signatures."""
    return re.sub(r"(?<=://)\S*@|\?\S*", "", text)


def pip_options() -> dict[str, str]:
    """The options that pip's configuration files and the environment set for `pip download`, later ones winning.

    Raises:
        PipelineError: pip cannot read its configuration. Its own words are left out: they quote the line in question.
    """
    command = [sys.executable, "-m", "pip", "config", "list"]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise PipelineError("expected a configuration that pip can read; see what it says: python -m pip config list")
    entries = re.findall(r"^(global|download|:env:)\.([\w-]+)=(.+)$", done.stdout, flags=re.MULTILINE)
    sections = {name: {} for name in ("global", "download", ":env:")}
    for section, option, value in entries:
        if text := ast.literal_eval(value).strip():
            sections[section][option] = text
    return sections["global"] | sections["download"] | sections[":env:"]


def finders(options: dict[str, str], session: PyPIClient) -> Iterator[PackageFinder]:
    """One finder for each place to look in, so that one that fails does not hide the others."""
    for place in options.get("find-links", "").split():
        if "://" in place or Path(place).expanduser().exists():
            place = place if "://" in place else str(Path(place).expanduser())
            yield PackageFinder(session, find_links=[place], ignore_compatibility=True)
    for address in index_addresses(options):
        yield PackageFinder(session, index_urls=[address], ignore_compatibility=True)


def index_addresses(options: dict[str, str]) -> list[str]:
    """The indexes that pip would ask, in its order."""
    if options.get("no-index", "0").lower() in ("1", "true", "t", "yes", "y", "on"):
        return []
    main = options.get("index-url") or options.get("pypi-url") or PyPI.simple_url
    return [main, *options.get("extra-index-url", "").split()]


def client(options: dict[str, str]) -> PyPIClient:
    """A client with pip's certificates, proxy, trusted hosts and time limit that never asks for a password.

    A server's own failures (429, 5xx) are raised as `httpx2.HTTPError`, as those of the network are.

    Raises:
        PipelineError: one of the options cannot be used; its value is left out, since a proxy's can hold a password.
    """
    proxies = {"http": options["proxy"], "https": options["proxy"]} if "proxy" in options else {}
    hosts = options.get("trusted-host", "").split()
    try:
        return PyPIClient(
            auth=MultiDomainBasicAuth(prompting=False, index_urls=index_addresses(options)),
            trusted_hosts=hosts,
            mounts={pattern: transport for host in hosts for pattern, transport in unverified(host, proxies)},
            verify=trusted_certificates(options),
            proxy=with_scheme(proxies.get("https")),
            timeout=float(options.get("timeout") or options.get("default-timeout") or TIMEOUT),
            follow_redirects=True,
            headers={"Accept-Encoding": "identity"},  # the sha256 is that of the file, not of a compressed transfer
            event_hooks={"response": [raise_server_failures]},
        )
    except (ValueError, ImportError, OSError, httpx2.InvalidURL) as error:
        raise PipelineError(
            "expected usable proxy, cert, client-cert, trusted-host and timeout in pip's configuration, found "
            f"{type(error).__name__} with one of them; see: python -m pip config list"
        ) from None


def unverified(host: str, proxies: dict[str, str]) -> Iterator[tuple[str, httpx2.HTTPTransport]]:
    """The ways to a trusted host: unearth's own would go past the proxies, of which the environment's come second."""
    known = proxies or ({} if urllib.request.proxy_bypass(host) else urllib.request.getproxies())
    for scheme in ("http", "https"):
        yield f"{scheme}://{host}", httpx2.HTTPTransport(verify=False, proxy=with_scheme(known.get(scheme)))


def with_scheme(proxy: str | None) -> str | None:
    """A proxy's address as httpx expects it; pip also takes `user:password@host:port`."""
    return f"http://{proxy}" if proxy and "://" not in proxy else proxy


def trusted_certificates(options: dict[str, str]) -> ssl.SSLContext:
    """The certificates that pip trusts: its own option, then the variables that its client reads, then the system's."""
    variables = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")
    bundle = options.get("cert") or next(filter(None, map(os.environ.get, variables)), None)
    if bundle:
        trusted = ssl.create_default_context(**{"capath" if Path(bundle).is_dir() else "cafile": bundle})
    else:
        trusted = httpx2.create_ssl_context()
    if "client-cert" in options:
        trusted.load_cert_chain(options["client-cert"])
    return trusted


def raise_server_failures(response: httpx2.Response) -> None:
    """Let `search` try again, which else would take the answer for a page without links."""
    if response.status_code == httpx2.codes.TOO_MANY_REQUESTS or response.is_server_error:
        response.raise_for_status()


@contextmanager
def explained(findings: Findings, place: str) -> Iterator[None]:
    """Note why a place failed, by an error or by a warning that unearth logs instead (no answer, no trusted host)."""
    logger, handler = logging.getLogger("unearth.collector"), BufferingHandler(capacity=1000)
    logger.addHandler(handler)
    try:
        yield
    except httpx2.HTTPError as error:
        findings.failures.append(f"{place}: {words(error)}, in every attempt; run again later")
    except (OSError, UnpackError) as error:
        findings.failures.append(f"{place}: {words(error)}")
    finally:
        logger.removeHandler(handler)
        findings.failures += [record.getMessage() for record in handler.buffer if record.levelno >= logging.WARNING]


def words(error: Exception) -> str:
    """The text of an error without the address that was asked, or its name where it has none."""
    return str(error).partition(" for url")[0] or type(error).__name__
