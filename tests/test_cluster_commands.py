"""Batches taken apart for a Redis Cluster and put together again: played by hand, with no server."""

from __future__ import annotations

from typing import Any

import pytest

from embedcache.cluster.commands import of_all, take_apart
from embedcache.cluster.delivery import deliver
from embedcache.cluster.scans import scan
from embedcache.cluster.slots import SLOTS, SlotMap, redirected, slot_of
from embedcache.cluster.topology import Topology
from embedcache.commands import Command
from embedcache.errors import InvalidInputError, InvalidURLError, ServerReplyError
from embedcache.scripts import ADD_COUNTS, READ_HEADS, RESTART_TTLS, WRITE_WITH_TTL
from embedcache.urls import parse_cluster

A, B = ("127.0.0.1", 7000), ("127.0.0.1", 7001)
HALVES: list[Any] = [
    [0, SLOTS // 2 - 1, [b"127.0.0.1", 7000, b"a"]],
    [SLOTS // 2, SLOTS - 1, [b"127.0.0.1", 7001, b"b"]],
]
IN_A, IN_B = "b", "a"  # slots 3300 and 15495
MOVED = ServerReplyError(f"MOVED {slot_of('b')} 127.0.0.1:7001")


def played(*rounds: dict[Any, Any], commands: list[Command]) -> tuple[Any, list[Any]]:
    """What a delivery returns, and what it sent in each round, when it is given these replies."""
    topology = Topology([A])
    sent: list[Any] = []
    delivery = deliver(topology, commands)
    step = next(delivery)
    waiting = iter([{A: [HALVES]}, *rounds])
    try:
        while True:
            if isinstance(step, float):
                step = delivery.send({})
                continue
            sent.append(step)
            step = delivery.send(next(waiting))
    except StopIteration as end:
        return end.value, sent[1:]


# ------------------------------------------------------------------------------------------------ bad input


@pytest.mark.parametrize(
    "command",
    [("FLUSHALL",), ("RANDOMKEY",), ("CLIENT", "ID"), ("EVAL", "return 1", 0), ("MEMORY", "STATS"), ("NOSUCH", "key")],
)
def test_a_command_that_names_no_node_is_refused(command: Command) -> None:
    with pytest.raises(InvalidInputError, match="names no key"):
        take_apart([("GET", "a"), command])


def test_a_transaction_of_many_keys_is_refused() -> None:
    with pytest.raises(InvalidInputError, match="MGET cannot be part of a transaction"):
        take_apart([("MULTI",), ("MGET", "a", "b"), ("EXEC",)])


@pytest.mark.parametrize("url", ["redis+cluster://h:1/2", "redis+cluster://h:x", "redis+cluster://h:1,h2:y"])
def test_a_url_that_cannot_be_used_is_refused(url: str) -> None:
    with pytest.raises(InvalidURLError):
        parse_cluster(url)


# ------------------------------------------------------------------------------------------------ slots and URLs


def test_slots_are_those_of_the_specification() -> None:
    known = {"123456789": 12739, "foo": 12182, "{user1000}.following": slot_of("user1000"), "foo{}{bar}": 8363}
    assert {key: slot_of(key) for key in known} == known
    assert slot_of("foo{{bar}}zap") == slot_of("{bar")
    assert slot_of("a{b}{c}") == slot_of("b")
    assert slot_of("é") == slot_of("é".encode())


def test_a_url_names_nodes() -> None:
    nodes, settings = parse_cluster("redis+cluster://me:p%40ss@one:7000,two,[::1]:7002/0?socket_timeout=2")
    assert nodes == [("one", 7000), ("two", 6379), ("::1", 7002)]
    assert (settings["username"], settings["password"], settings["socket_timeout"]) == ("me", "p@ss", 2)
    _, secure = parse_cluster("rediss+cluster://one")
    assert secure["connection_class"].__name__ == "SSLConnection"


def test_a_node_that_does_not_know_its_host_is_the_one_that_was_asked() -> None:
    found = SlotMap.parse([[0, 1, ["", 7000, "a"], ["?", 7001, "b"]]], ("h", 9))
    assert (found.primaries, found.nodes) == ((("h", 7000),), (("h", 7000), ("h", 7001)))
    assert not found.covers_all
    assert redirected("ASK 3 :7002", ("h", 9)) == (3, ("h", 7002))
    assert redirected("MOVED 3 ::1:7002", ("h", 9), lambda address: ("inside", address[1])) == (3, ("inside", 7002))


# ------------------------------------------------------------------------------------------------ commands of many keys


def test_values_come_back_in_order() -> None:
    got, sent = played({A: [b"1"], B: [b"2", None]}, commands=[("MGET", IN_B, IN_A, "{a}x")])
    assert sent == [{B: [("GET", IN_B), ("GET", "{a}x")], A: [("GET", IN_A)]}]
    assert got == [[b"2", b"1", None]]


def test_mget_passes_over_another_type_and_nothing_else() -> None:
    wrong, forbidden = ServerReplyError("WRONGTYPE of value"), ServerReplyError("NOPERM no")
    assert played({A: [wrong], B: [b"2"]}, commands=[("MGET", IN_A, IN_B)])[0] == [[None, b"2"]]
    assert played({A: [forbidden], B: [b"2"]}, commands=[("MGET", IN_A, IN_B)])[0] == [forbidden]


def test_msetex_is_a_set_for_each() -> None:
    got, sent = played({A: [b"OK"], B: [b"OK"]}, commands=[("MSETEX", 2, IN_A, b"1", IN_B, b"2", "EX", 5)])
    assert sent == [{A: [("SET", IN_A, b"1", "EX", 5)], B: [("SET", IN_B, b"2", "EX", 5)]}]
    assert got == [1]


def test_counts_are_added_up() -> None:
    assert played({A: [1], B: [1, 0]}, commands=[("EXISTS", IN_A, IN_B, "{a}x")])[0] == [2]


def test_a_script_runs_for_each_key_with_its_arguments() -> None:
    command = ("EVALSHA", WRITE_WITH_TTL.sha, 2, IN_A, IN_B, b"1", b"2", 60)
    got, sent = played({A: [1], B: [1]}, commands=[command])
    sha = WRITE_WITH_TTL.sha
    assert sent == [{A: [("EVALSHA", sha, 1, IN_A, b"1", 60)], B: [("EVALSHA", sha, 1, IN_B, b"2", 60)]}]
    assert got == [2]
    heads = played({A: [[b"a", 1]], B: [[None, 0]]}, commands=[("EVALSHA", READ_HEADS.sha, 2, IN_B, IN_A)])[0]
    assert heads == [[None, 0, b"a", 1]]


def test_a_script_whose_keys_belong_together_is_sent_whole_or_refused() -> None:
    together = ("EVALSHA", ADD_COUNTS.sha, 2, "{t}1", "{t}2", 5)
    pieces = take_apart([together])
    assert (pieces.commands, pieces.slots) == ([together], [slot_of("t")])
    (refused,) = take_apart([("EVALSHA", ADD_COUNTS.sha, 2, IN_A, IN_B)]).put_together([])
    assert refused.code == "CROSSSLOT"


def test_a_script_that_a_node_does_not_know_is_sent_to_that_node_once() -> None:
    unknown = ServerReplyError("NOSCRIPT No matching script")
    command = ("EVALSHA", RESTART_TTLS.sha, 3, IN_A, "{b}x", IN_B)
    got, sent = played({A: [unknown, unknown], B: [0]}, {A: [0, 0]}, commands=[command])
    assert sent[1] == {A: [("EVAL", RESTART_TTLS.source, 1, IN_A), ("EVALSHA", RESTART_TTLS.sha, 1, "{b}x")]}
    assert got == [0]


def test_a_transaction_across_slots_becomes_one_for_each() -> None:
    commands: list[Command] = [("MULTI",), ("UNLINK", IN_A), ("SET", IN_B, b"1"), ("PEXPIRE", IN_B, 5), ("EXEC",)]
    got, sent = played({A: ["OK", "Q", [1]], B: ["OK", "Q", "Q", [b"OK", 1]]}, commands=commands)
    assert sent == [
        {
            A: [("MULTI",), ("UNLINK", IN_A), ("EXEC",)],
            B: [("MULTI",), ("SET", IN_B, b"1"), ("PEXPIRE", IN_B, 5), ("EXEC",)],
        }
    ]
    assert got == ["OK", "Q", "Q", "Q", [1, b"OK", 1]]


# ------------------------------------------------------------------------------------------------ nodes that fail


def test_what_has_moved_is_followed_and_remembered() -> None:
    got, sent = played({A: [MOVED]}, {B: [b"1"]}, commands=[("GET", IN_A)])
    assert (got, sent) == ([b"1"], [{A: [("GET", IN_A)]}, {B: [("GET", IN_A)]}])


def test_a_node_is_asked_for_what_is_on_its_way_to_it() -> None:
    ask = ServerReplyError(f"ASK {slot_of(IN_A)} 127.0.0.1:7001")
    got, sent = played({A: [ask, b"2"]}, {B: [b"OK", b"1"]}, commands=[("GET", IN_A), ("GET", "{b}x")])
    assert sent[1] == {B: [("ASKING",), ("GET", IN_A)]}
    assert got == [b"1", b"2"]


def test_another_try_is_made_where_a_node_is_gone_and_not_a_third() -> None:
    lost = ConnectionResetError("lost")
    got, sent = played({A: lost, B: [b"2"]}, {B: [HALVES]}, {A: [b"1"]}, commands=[("MGET", IN_A, IN_B)])
    assert got == [[b"1", b"2"]]
    assert sent[-1] == {A: [("GET", IN_A)]}
    with pytest.raises(ConnectionError, match="7000: lost"):
        played({A: lost}, {B: [HALVES]}, {A: lost}, commands=[("GET", IN_A)])


def test_half_an_answer_is_none() -> None:
    """What one node says of all keys is never taken for the whole."""
    with pytest.raises(ConnectionError, match="7001"):
        played({A: [3, HALVES], B: OSError("away")}, {A: [HALVES]}, commands=[("DBSIZE",)])
    with pytest.raises(ConnectionError, match="no primary"):
        played({A: [3, HALVES[:1]], B: [4]}, {A: [3, HALVES[:1]]}, commands=[("DBSIZE",)])


def test_a_cluster_whose_nodes_all_are_away() -> None:
    delivery = deliver(Topology([A, B]), [("GET", "a")])
    assert next(delivery) == {A: [("CLUSTER", "SLOTS")]}
    assert delivery.send({A: OSError("no")}) == {B: [("CLUSTER", "SLOTS")]}
    with pytest.raises(ConnectionError, match=r"127\.0\.0\.1:7000, 127\.0\.0\.1:7001: no"):
        delivery.send({B: OSError("no")})


def test_a_walk_begins_anew_where_another_node_is_primary() -> None:
    topology = Topology([A])
    walk = scan(topology, ("SCAN", 0))
    next(walk)
    walk.send({A: [HALVES]})
    step = walk.send({A: [b"x 1 myself - - - - - 0", HALVES], B: [b"y 1 myself - - - - - 1"]})
    assert step == {A: [("SCAN", 0)], B: [("SCAN", 0)]}
    with pytest.raises(StopIteration) as ended:
        walk.send({A: [[b"5", [b"k"]]], B: [[b"0", []]]})
    cursor, keys = ended.value.value
    assert (cursor > 0, keys) == (True, [b"k"])
    topology.move({0: B, **dict.fromkeys(range(SLOTS // 2), B)})
    again = scan(topology, ("SCAN", cursor))
    next(again)
    with pytest.raises(StopIteration) as ended:
        again.send({B: [b"y 1 myself - - - - - 1", [[0, SLOTS - 1, HALVES[1][2]]]]})
    assert ended.value.value[0] > 0
    assert ended.value.value[1] == []


# ------------------------------------------------------------------------------------------------ what all nodes say


def test_what_nodes_say_of_themselves_is_added_up() -> None:
    infos = [
        {
            "used_memory": 5,
            "maxmemory": 100,
            "uptime_in_seconds": 9,
            "aof_last_write_status": "ok",
            "redis_version": "8",
        },
        {
            "used_memory": 7,
            "maxmemory": 0,
            "uptime_in_seconds": 3,
            "aof_last_write_status": "err",
            "redis_version": "8",
        },
    ]
    merged = of_all("INFO", infos)
    assert merged == {
        "used_memory": 12,
        "maxmemory": 0,
        "uptime_in_seconds": 3,
        "aof_last_write_status": "err",
        "redis_version": "8",
    }
    forbidden = ServerReplyError("NOPERM")
    assert of_all("DBSIZE", [1, forbidden]) is forbidden
    assert of_all("DBSIZE", [1, 2]) == 3
