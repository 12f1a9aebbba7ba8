"""`rempart.gateway.server.bind`: one site has an address, with one socket or with one for each worker."""

from __future__ import annotations

import socket

import pytest

from rempart.errors import AddressInUse, ConfigError
from rempart.gateway.server import Address, bind, bind_beside


def at(port: int = 0) -> Address:
    return Address(host="127.0.0.1", port=port)


@pytest.mark.parametrize("first", [False, True])
@pytest.mark.parametrize("second", [False, True])
def test_a_second_site_is_refused_whether_either_has_workers_or_not(first: bool, second: bool) -> None:
    with bind(at(), shared=first) as sock:
        port = sock.getsockname()[1]
        with pytest.raises(AddressInUse, match=str(port)):
            bind(at(port), shared=second)
    with bind(at(port), shared=second):
        pass


def test_workers_get_what_comes_once_they_listen_and_nothing_once_they_are_gone() -> None:
    with bind(at(), shared=True) as first:
        where = first.getsockname()
        second = bind_beside(first, at())
        assert second.getsockname() == where
        assert taken(where, first, second) == {0}
        second.listen()
        assert taken(where, first, second) == {0, 1}
        second.close()
        assert taken(where, first) == {0}


def taken(where: tuple[str, int], *socks: socket.socket) -> set[int]:
    """Which of them are dealt some of many connections."""
    clients = [socket.create_connection(where) for _ in range(64)]
    found = set()
    for number, sock in enumerate(socks):
        while True:
            try:
                sock.accept()[0].close()
            except (BlockingIOError, OSError):
                break
            found.add(number)
    for client in clients:
        client.close()
    return found


def test_an_address_of_another_machine_is_refused() -> None:
    with pytest.raises(ConfigError):
        bind(Address(host="192.0.2.1", port=0), shared=True)
