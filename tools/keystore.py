"""Make an SROS2 keystore from a policy, where there is no ``ros2 security``.

    python -m tools.keystore KEYSTORE [--policy config/security/policy.xml] [--days 3650]

Keys, certificates, governance and permissions as ``ros2 security generate_artifacts`` makes them,
with openssl. Every enclave of the policy is certified; the file permissions keep private keys to
the owner. The key of the certificate authority, ``KEYSTORE/private``, belongs on no robot.
"""

from __future__ import annotations

import argparse
import datetime
import os
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from dataclasses import dataclass, field
from pathlib import Path
from xml.sax.saxutils import escape

from wm_mpc.core.errors import UserError

POLICY = Path(__file__).resolve().parents[1] / "config" / "security" / "policy.xml"
CA = "ca"
EVERY_NODE = "ros_discovery_info"
"""Topic by which ROS nodes find each other."""


@dataclass
class Grant:
    """What one enclave may do, by names of ROS.

    Attributes:
        publish: topics, absolute names.
        subscribe: likewise.
        reply: services that it offers.
        request: services that it calls.
        execute: actions that it offers.
        call: actions that it calls.
    """

    publish: set[str] = field(default_factory=set)
    subscribe: set[str] = field(default_factory=set)
    reply: set[str] = field(default_factory=set)
    request: set[str] = field(default_factory=set)
    execute: set[str] = field(default_factory=set)
    call: set[str] = field(default_factory=set)

    def dds(self) -> tuple[set[str], set[str]]:
        """Names of DDS that it may write and read (design.ros2.org, topic and service names)."""
        write = {f"rt{name}" for name in self.publish} | {EVERY_NODE}
        read = {f"rt{name}" for name in self.subscribe} | {EVERY_NODE}
        parts = ("send_goal", "cancel_goal", "get_result")
        offered = self.reply | {f"{a}/_action/{part}" for a in self.execute for part in parts}
        called = self.request | {f"{a}/_action/{part}" for a in self.call for part in parts}
        write |= {f"rr{s}Reply" for s in offered} | {f"rq{s}Request" for s in called}
        read |= {f"rq{s}Request" for s in offered} | {f"rr{s}Reply" for s in called}
        told = ("feedback", "status")
        write |= {f"rt{a}/_action/{word}" for a in self.execute for word in told}
        read |= {f"rt{a}/_action/{word}" for a in self.call for word in told}
        return write, read


def read_policy(path: Path) -> dict[str, Grant]:
    """Enclave path -> what it may do.

    Raises:
        UserError: no policy, or a word that is not understood; nothing is allowed by accident.
    """
    try:
        root = ElementTree.parse(path).getroot()
    except (OSError, ElementTree.ParseError) as error:
        raise UserError(f"policy: {path}: {error}") from None
    grants: dict[str, Grant] = {}
    for enclave in root.iterfind("enclaves/enclave"):
        grant = grants.setdefault(enclave.attrib["path"], Grant())
        for profile in enclave.iterfind("profiles/profile"):
            for group in profile:
                _add(grant, group, profile.attrib["ns"], profile.attrib["node"])
    if not grants:
        raise UserError(f"policy: {path}: no enclave")
    return grants


def _add(grant: Grant, group: ElementTree.Element, namespace: str, node: str) -> None:
    for word, rule in group.attrib.items():
        if word not in vars(grant) or rule != "ALLOW":
            raise UserError(f"policy: <{group.tag} {word}={rule!r}>; {list(vars(grant))} = "
                            "ALLOW expected")  # fmt: skip
        getattr(grant, word).update(_absolute(e.text.strip(), namespace, node) for e in group)


def _absolute(name: str, namespace: str, node: str) -> str:
    base = namespace.rstrip("/")
    if name.startswith("~/"):
        return f"{base}/{node}/{name[2:]}"
    return name if name.startswith("/") else f"{base}/{name}"


def permissions(enclave: str, grant: Grant, ends: datetime.datetime) -> str:
    """Permissions document of DDS Security; what it does not name is denied."""

    def rule(tag: str, names: set[str]) -> str:
        topics = "".join(f"<topic>{escape(name)}</topic>" for name in sorted(names))
        return f"<{tag}><topics>{topics}</topics></{tag}>"

    write, read = grant.dds()
    return f"""<?xml version="1.0" encoding="UTF-8"?>
<dds xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance" xsi:noNamespaceSchemaLocation=\
"http://www.omg.org/spec/DDS-SECURITY/20170901/omg_shared_ca_permissions.xsd">
<permissions><grant name="{escape(enclave)}"><subject_name>CN={escape(enclave)}</subject_name>
<validity><not_before>2020-01-01T00:00:00</not_before>
<not_after>{ends:%Y-%m-%dT%H:%M:%S}</not_after></validity>
<allow_rule><domains><id_range><min>0</min><max>232</max></id_range></domains>
{rule("publish", write)}
{rule("subscribe", read)}
</allow_rule><default>DENY</default></grant></permissions></dds>
"""


GOVERNANCE = """<?xml version="1.0" encoding="UTF-8"?>
<dds xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance" xsi:noNamespaceSchemaLocation=\
"http://www.omg.org/spec/DDS-SECURITY/20170901/omg_shared_ca_governance.xsd">
<domain_access_rules><domain_rule>
<domains><id_range><min>0</min><max>232</max></id_range></domains>
<allow_unauthenticated_participants>false</allow_unauthenticated_participants>
<enable_join_access_control>true</enable_join_access_control>
<discovery_protection_kind>ENCRYPT</discovery_protection_kind>
<liveliness_protection_kind>ENCRYPT</liveliness_protection_kind>
<rtps_protection_kind>SIGN</rtps_protection_kind>
<topic_access_rules><topic_rule><topic_expression>*</topic_expression>
<enable_discovery_protection>true</enable_discovery_protection>
<enable_liveliness_protection>true</enable_liveliness_protection>
<enable_read_access_control>true</enable_read_access_control>
<enable_write_access_control>true</enable_write_access_control>
<metadata_protection_kind>ENCRYPT</metadata_protection_kind>
<data_protection_kind>ENCRYPT</data_protection_kind>
</topic_rule></topic_access_rules></domain_rule></domain_access_rules></dds>
"""


def make_keystore(folder: Path, policy: Path = POLICY, days: int = 3650) -> list[str]:
    """Write a keystore; an existing certificate authority is used again.

    Args:
        folder: keystore, for ``ROS_SECURITY_KEYSTORE``.
        policy: SROS2 policy.
        days: how long certificates and permissions hold.

    Returns:
        Paths of the enclaves.

    Raises:
        UserError: no openssl, or a policy that cannot be used.
    """
    if shutil.which("openssl") is None:
        raise UserError("openssl: not found; apt install openssl")
    grants = read_policy(policy)
    public, private, enclaves = (folder / part for part in ("public", "private", "enclaves"))
    for part in (public, private, enclaves):
        part.mkdir(parents=True, exist_ok=True)
    private.chmod(0o700)
    certificate, key = public / f"{CA}.cert.pem", private / f"{CA}.key.pem"
    if not key.exists():
        _openssl("ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", key)
        subject = ("-subj", "/CN=wm_mpc CA")
        _openssl("req", "-x509", "-new", "-sha256", "-key", key, "-days", days, *subject,
                 "-out", certificate)  # fmt: skip
    signed = ("-signer", certificate, "-inkey", key)
    (enclaves / "governance.xml").write_text(GOVERNANCE)
    _sign(enclaves / "governance.xml", signed)
    ends = datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(days=days)
    for path, grant in grants.items():
        own = enclaves / path.strip("/")
        own.mkdir(parents=True, exist_ok=True)
        _certify(own, path, certificate, key, days)
        (own / "permissions.xml").write_text(permissions(path, grant, ends))
        _sign(own / "permissions.xml", signed)
        for name in ("identity_ca", "permissions_ca"):
            shutil.copyfile(certificate, own / f"{name}.cert.pem")
        shutil.copyfile(enclaves / "governance.p7s", own / "governance.p7s")
    return list(grants)


def _certify(own: Path, path: str, certificate: Path, key: Path, days: int) -> None:
    if (own / "cert.pem").exists():
        return
    request = own / "request.pem"
    _openssl("ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", own / "key.pem")
    # slashes of the name would end it
    subject = "/CN=" + path.replace("/", "\\/")
    _openssl("req", "-new", "-sha256", "-key", own / "key.pem", "-subj", subject, "-out", request)
    _openssl("x509", "-req", "-sha256", "-in", request, "-CA", certificate, "-CAkey", key,
             "-CAcreateserial", "-CAserial", own / "serial", "-days", days, "-out",
             own / "cert.pem")  # fmt: skip
    for part in (request, own / "serial"):
        part.unlink()


def _sign(document: Path, signed: tuple[object, ...]) -> None:
    _openssl("smime", "-sign", "-text", "-in", document, "-out", document.with_suffix(".p7s"),
             *signed)  # fmt: skip


def _openssl(*words: object) -> None:
    mask = os.umask(0o077)
    try:
        subprocess.run(["openssl", *map(str, words)], check=True, capture_output=True, text=True)
    except subprocess.CalledProcessError as error:
        lines = error.stderr.strip().splitlines()
        raise UserError(f"openssl {words[0]}: {lines[-1] if lines else error}") from None
    finally:
        os.umask(mask)


def main() -> int:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("keystore", type=Path)
    parser.add_argument("--policy", type=Path, default=POLICY)
    parser.add_argument("--days", type=int, default=3650)
    options = parser.parse_args()
    try:
        made = make_keystore(options.keystore, options.policy, options.days)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"{options.keystore}: {len(made)} enclaves: {', '.join(made)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
