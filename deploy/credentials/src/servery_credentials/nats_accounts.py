"""Who may do what on this installation's NATS: the keys that say so, and credentials made with them."""

import json
from collections.abc import Callable
from dataclasses import asdict
from datetime import datetime
from pathlib import Path

from servery_common.contracts.permissions import COMPUTE_PLANE, Permissions
from servery_common.nats_credentials import Authority, ConnectsAs, KeyPair, make_user
from servery_credentials.files import write


def open_nats_authority(directory: Path) -> Authority:
    """Return the keys kept in ``directory``; makes them at the first call."""
    file = directory / "nats.json"
    if not file.exists():
        made = Authority.make()
        seeds = {"operator": made.operator.seed, "account": made.account.seed, "system": made.system.seed}
        write(file, json.dumps(seeds).encode())
    seeds = json.loads(file.read_bytes())
    return Authority(*(KeyPair.of(seeds[name]) for name in ("operator", "account", "system")))


def keep_server_config(
    authority: Authority,
    directory: Path,
    owner: int | None,
    now: datetime,
    compute_plane: KeyPair | None = None,
) -> bool:
    """See that the server is told of this authority, in ``accounts.conf``; True when it was not.

    With ``compute_plane``, the account of one in another network, it is told of that, too.
    """
    file, noted = directory / "accounts.conf", directory / "accounts.noted"
    wanted = "" if compute_plane is None else _passage_to(compute_plane)
    if file.exists() and (noted.read_text() if noted.exists() else "") == wanted:
        return False
    write(file, authority.server_config(now, compute_plane).encode(), owner=owner)
    write(noted, wanted.encode(), mode=0o444, owner=owner)
    return True


def _passage_to(compute_plane: KeyPair) -> str:
    return json.dumps({"compute_plane": compute_plane.public, **asdict(COMPUTE_PLANE)})


def keep_credentials(
    account: KeyPair,
    directory: Path,
    name: str,
    rights: Permissions,
    owner: int | None,
    now: datetime,
    connects_as: ConnectsAs = "STANDARD",
) -> bool:
    """See that there is a ``nats.creds`` with these rights; True when it was written.

    They have no end: a connection ends with its credentials, and with a gateway's what it has under way. Rights that
    changed with a release are noted beside them, so that an upgrade brings new ones.
    """
    noted = directory / "nats.rights"
    wanted = json.dumps(
        {
            "publish": rights.publish,
            "subscribe": rights.subscribe,
            "answers": rights.answers,
            "by": account.public,
        }
    ).encode()
    if noted.exists() and noted.read_bytes() == wanted and (directory / "nats.creds").exists():
        return False
    credentials = make_user(account, name, rights, now, connects_as=connects_as)
    write(directory / "nats.creds", credentials.encode(), owner=owner)
    write(noted, wanted, mode=0o444, owner=owner)
    return True


def keep_system_credentials(authority: Authority, directory: Path, now: datetime) -> Path:
    """Return credentials of the system account, with which servers are told to reload; makes them once."""
    file = directory / "nats_system.creds"
    _once(file, lambda: make_user(authority.system, "credentials", None, now), None)
    return file


def keep_account_seed(authority: Authority, directory: Path, owner: int | None) -> bool:
    """See that whoever makes replicas can make their credentials (``nats_account.seed``)."""
    return _once(directory / "nats_account.seed", lambda: authority.account.seed, owner)


def _once(file: Path, make: Callable[[], str], owner: int | None) -> bool:
    if file.exists():
        return False
    write(file, make().encode(), owner=owner)
    return True
