"""Admission of frames: bounded, fair, and cheap however many wait."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from broker.memory_pool import MemoryPool, Ticket, request_memory

KIB = 1024
LIMIT = 1024 * KIB
SMALL = 1 * KIB


def pool() -> MemoryPool:
    made = MemoryPool(LIMIT, SMALL)
    assert made.share_bytes == 128 * KIB
    return made


def test_an_address_gets_its_share_and_no_more() -> None:
    one = pool()
    assert one.try_reserve("a", 100 * KIB)
    assert not one.try_reserve("a", 100 * KIB)
    assert one.try_reserve("b", 100 * KIB)


def elastic() -> MemoryPool:
    return MemoryPool(LIMIT, SMALL, elastic=True)


def filled(one: MemoryPool, owners: list[str], size_bytes: int) -> dict[str, int]:
    """What each holds when all of them have taken turns to ask until nobody got more."""
    held = dict.fromkeys(owners, 0)
    asking = list(owners)
    while asking:
        asking = [owner for owner in asking if one.try_reserve(owner, size_bytes)]
        for owner in asking:
            held[owner] += size_bytes
    return held


def test_an_address_that_is_alone_gets_half_and_leaves_half() -> None:
    one = elastic()
    assert filled(one, ["a"], 32 * KIB) == {"a": LIMIT // 2}
    assert one.limit_bytes - one.used_bytes == LIMIT // 2


def test_whoever_comes_later_finds_a_share_beside_those_who_hold_much() -> None:
    one = elastic()
    filled(one, ["a"], 16 * KIB)
    filled(one, ["b"], 16 * KIB)
    filled(one, ["c"], 16 * KIB)
    assert one.try_reserve("d", one.share_bytes)


def test_many_addresses_get_an_eighth_each() -> None:
    for count in (7, 8):
        held = filled(elastic(), [f"h{n}" for n in range(count)], 16 * KIB)
        assert set(held.values()) == {LIMIT // 8}


def test_who_holds_more_than_its_share_gets_nothing_while_others_need_it() -> None:
    one = elastic()
    got: list[str] = []
    filled(one, ["a"], 64 * KIB)
    for n in range(4):
        assert one.try_reserve(f"h{n}", 128 * KIB)
    one.wait("a", 64 * KIB, lambda: got.append("a"))
    one.wait("b", 128 * KIB, lambda: got.append("b"))
    one.release("a", 64 * KIB)
    assert got == []
    one.release("a", 64 * KIB)
    assert got == ["b"], "it holds more than its share, and nothing is free"
    for _ in range(5):
        one.release("a", 64 * KIB)
    assert got == ["b", "a"]


def test_small_frames_go_on_when_all_else_is_taken() -> None:
    one = pool()
    for n in range(8):
        assert one.try_reserve(f"h{n}", 128 * KIB)
    assert not one.try_reserve("x", 2 * KIB)
    assert one.try_reserve("x", KIB)
    assert one.try_reserve("h0", KIB), "its share is used up by larger ones"


def test_one_frame_beyond_the_share_is_held_at_a_time() -> None:
    one = pool()
    assert one.try_reserve("a", 500 * KIB)
    assert not one.try_reserve("b", 200 * KIB)
    one.release("a", 500 * KIB)
    assert one.try_reserve("b", 200 * KIB)


def test_a_frame_beyond_the_whole_bound_goes_alone() -> None:
    one = pool()
    assert one.try_reserve("a", 10)
    assert not one.try_reserve("b", 2 * LIMIT)
    one.release("a", 10)
    assert one.try_reserve("b", 2 * LIMIT)
    assert not one.try_reserve("c", 2 * KIB)


def test_a_large_frame_is_not_starved_by_smaller_ones() -> None:
    one = pool()
    got: list[str] = []
    for n in range(7):
        assert one.try_reserve(f"h{n}", 128 * KIB)
    one.wait("big", 900 * KIB, lambda: got.append("big"))
    assert not one.try_reserve("h7", 100 * KIB), "there is room, but the large one was first"
    one.wait("h7", 100 * KIB, lambda: got.append("h7"))
    for n in range(6):
        one.release(f"h{n}", 128 * KIB)
        assert got == []
    one.release("h6", 128 * KIB)
    assert got == ["big", "h7"]


def test_who_waits_is_served_in_order() -> None:
    one = pool()
    got: list[int] = []
    for n in range(8):
        assert one.try_reserve(f"h{n}", 128 * KIB)
    for n in range(10):
        one.wait(f"w{n}", 64 * KIB, lambda n=n: got.append(n))  # type: ignore[misc]
    one.release("h0", 128 * KIB)
    assert got == [0, 1]
    one.release("h1", 128 * KIB)
    assert got == [0, 1, 2, 3]


def test_an_address_at_its_share_holds_nobody_else_back() -> None:
    one = pool()
    got: list[str] = []
    assert one.try_reserve("a", 128 * KIB)
    one.wait("a", 64 * KIB, lambda: got.append("a"))
    one.wait("b", 64 * KIB, lambda: got.append("b"))
    assert got == ["b"]
    one.release("b", 64 * KIB)
    assert got == ["b"]
    one.release("a", 128 * KIB)
    assert got == ["b", "a"]


def test_a_forgotten_waiter_is_not_called_and_lets_the_next_go() -> None:
    one = pool()
    got: list[str] = []
    for n in range(8):
        assert one.try_reserve(f"h{n}", 120 * KIB)
    first = one.wait("x", 100 * KIB, lambda: got.append("x"))
    one.wait("y", 50 * KIB, lambda: got.append("y"))
    assert got == []
    one.forget(first)
    assert got == ["y"]
    one.forget(first)
    assert one.waiting == 0


def test_thousands_who_wait_are_not_all_woken_by_a_release() -> None:
    one = pool()
    for n in range(8):
        assert one.try_reserve(f"h{n}", 128 * KIB)
    looked = 0
    has_room = one._has_room

    def counted(size_bytes: int) -> bool:
        nonlocal looked
        looked += 1
        return has_room(size_bytes)

    one._has_room = counted  # type: ignore[method-assign]
    got: list[int] = []
    for n in range(5000):
        one.wait(f"w{n}", 128 * KIB, lambda n=n: got.append(n))  # type: ignore[misc]
    looked = 0
    one.release("h0", 128 * KIB)
    assert got == [0]
    assert looked < 10


def test_a_large_frame_does_not_wait_for_its_address_share() -> None:
    one = pool()
    got: list[int] = []
    assert one.try_reserve("a", 1)
    for size in (128 * KIB, 200 * KIB):
        one.wait("a", size, lambda size=size: got.append(size))  # type: ignore[misc]
    assert got == [200 * KIB]
    one.release("a", 1)
    assert got == [200 * KIB, 128 * KIB]


def test_a_closed_pool_grants_nothing_more() -> None:
    one = pool()
    got: list[str] = []
    assert one.try_reserve("a", 500 * KIB)
    ticket = one.wait("b", 500 * KIB, lambda: got.append("b"))
    one.close()
    one.release("a", 500 * KIB)
    one.forget(ticket)
    assert got == [] and (one.waiting, one.used_bytes) == (0, 0)


ACTION = st.tuples(
    st.sampled_from(["ask", "release", "forget"]),
    st.sampled_from(["a", "b", "c", "d", "e", "f", "g", "h", "i", "j"]),
    st.sampled_from([1, 700, KIB, 10 * KIB, 60 * KIB, 128 * KIB, 200 * KIB, 2 * LIMIT]),
    st.integers(0, 1000),
)


@settings(max_examples=300, deadline=None)
@given(st.lists(ACTION, max_size=120), st.booleans())
def test_bounds_hold_and_nobody_who_fits_is_left_waiting(
    actions: list[tuple[str, str, int, int]], is_elastic: bool
) -> None:
    one = elastic() if is_elastic else pool()
    held: list[tuple[str, int]] = []
    waiting: dict[int, tuple[Ticket, str, int]] = {}
    for number, (what, owner, size, pick) in enumerate(actions):
        if what == "ask":
            if one.try_reserve(owner, size):
                held.append((owner, size))
            else:

                def granted(number: int = number, owner: str = owner, size: int = size) -> None:
                    waiting.pop(number, None)
                    held.append((owner, size))

                before = len(held)
                ticket = one.wait(owner, size, granted)
                if len(held) == before:
                    waiting[number] = (ticket, owner, size)
        elif what == "release" and held:
            one.release(*held.pop(pick % len(held)))
        elif what == "forget" and waiting:
            key = sorted(waiting)[pick % len(waiting)]
            one.forget(waiting.pop(key)[0])
        large = [size for _, size in held if size > one.share_bytes]
        assert len(large) <= 1
        assert one.used_bytes == sum(size for _, size in held)
        if large != [2 * LIMIT]:
            assert one.used_bytes <= LIMIT + one.reserve_bytes
        assert one.waiting == len(waiting)
        for owner in {owner for owner, _ in held}:
            mine = sum(s for o, s in held if o == owner and s <= one.share_bytes)
            assert mine <= max(one.small_share_bytes, LIMIT // 2 if is_elastic else 0)
        if not held:
            assert not waiting, "somebody waits for nothing"
    while held:
        one.release(*held.pop())
    assert not waiting
    assert one.used_bytes == 0
    assert not one._held and not one._by_share


def test_small_frames_go_on_beside_one_beyond_the_whole_bound() -> None:
    one = pool()
    assert one.try_reserve("a", 2 * LIMIT)
    for n in range(64):
        assert one.try_reserve(f"h{n}", SMALL)
    assert not one.try_reserve("x", SMALL), "the reserve is a bound too"
    one.release("h0", SMALL)
    assert one.try_reserve("x", SMALL)


def test_who_announces_much_and_is_not_known_takes_nothing_from_the_others() -> None:
    memory = request_memory(LIMIT)
    stranger = memory.for_frame(100 * KIB, known=False)
    assert stranger is not memory
    held = sum(stranger.try_reserve(f"h{n}", 30 * KIB) for n in range(1000))
    assert held * 30 * KIB <= LIMIT // 4
    assert memory.used_bytes == 0
    assert memory.limit_bytes + stranger.limit_bytes == LIMIT
    # Known, or as small as the first request of a client is: among all.
    assert memory.for_frame(100 * KIB, known=True) is memory
    assert memory.for_frame(200, known=False) is memory


def test_a_closed_pool_grants_strangers_nothing_either() -> None:
    memory = request_memory(LIMIT)
    strangers = memory.for_frame(LIMIT, known=False)
    assert strangers.try_reserve("a", LIMIT)
    granted: list[str] = []
    strangers.wait("b", LIMIT, lambda: granted.append("b"))
    memory.close()
    strangers.release("a", LIMIT)
    assert not granted
