"""Who may do what on this installation's NATS: the keys that say so, and credentials made with them."""

import json
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

from servery_common.contracts.permissions import Permissions
from servery_common.nats_credentials import Authority, KeyPair, make_user
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


def keep_server_config(authority: Authority, directory: Path, owner: int | None, now: datetime) -> bool:
    """See that the server is told of this authority, in ``accounts.conf``; True when it was not."""
    return _once(directory / "accounts.conf", lambda: authority.server_config(now), owner)


def keep_credentials(
    authority: Authority, directory: Path, name: str, rights: Permissions, owner: int | None, now: datetime
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
            "by": authority.account.public,
        }
    ).encode()
    if noted.exists() and noted.read_bytes() == wanted and (directory / "nats.creds").exists():
        return False
    write(directory / "nats.creds", make_user(authority.account, name, rights, now).encode(), owner=owner)
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
