from dataclasses import replace
from pathlib import Path

import orjson

from servery_common.contracts.access import Identity, SigningKey, TokenGrant
from servery_common.contracts.ip_access import WorkspaceIpAccess
from servery_common.contracts.quotas import WorkspaceQuota
from servery_common.contracts.routes import EndpointRoute
from servery_gateway.routing_table import Snapshot
from servery_gateway.snapshot_file import SnapshotFile, decode, encode

SNAPSHOT = Snapshot(
    routes={
        "e": EndpointRoute(endpoint_id="e", workspace_id="1", name="n", created_at_ms=3, status="serving")
    },
    identities={"p": Identity(principal_id="p", user_name="ann", workspace_id="1", groups=("data",))},
    tokens={"aa": TokenGrant(token_sha256="aa", principal_id="p", expires_at_ms=5)},
    signing_keys={"k": SigningKey(key_id="k", public_key="pem")},
    quotas={"1": WorkspaceQuota(workspace_id="1", qps=3000)},
    ip_access={"1": WorkspaceIpAccess(workspace_id="1", allow=("10.0.0.0/8",), block=("10.0.0.1/32",))},
    incarnations={"routes": "one", "identities": "two"},
)


def test_a_snapshot_survives_the_file_unchanged() -> None:
    assert decode(encode(SNAPSHOT)) == SNAPSHOT


def test_a_file_of_the_version_before_lacks_what_is_new_and_nothing_else() -> None:
    content = orjson.loads(encode(SNAPSHOT))
    del content["quotas"], content["ip_access"]
    assert decode(orjson.dumps(content)) == replace(SNAPSHOT, quotas={}, ip_access={})


def test_the_file_is_its_owners_alone_and_leaves_no_draft(tmp_path: Path) -> None:
    file = SnapshotFile(tmp_path / "new")
    file.save(Snapshot())
    file.save(SNAPSHOT)
    assert file.load() == SNAPSHOT
    (only,) = (tmp_path / "new").iterdir()
    assert only.stat().st_mode & 0o777 == 0o600


def test_what_cannot_be_read_is_an_empty_snapshot(tmp_path: Path) -> None:
    file = SnapshotFile(tmp_path)
    assert file.load() == Snapshot()
    file.save(SNAPSHOT)
    (path,) = tmp_path.iterdir()
    for content in (
        b"",
        b"{}",
        b"[]",
        encode(SNAPSHOT)[:-5],
        b'{"format": 2}',
        b'{"format": 1, "routes": {"e": {}}}',
    ):
        path.write_bytes(content)
        assert file.load() == Snapshot()
